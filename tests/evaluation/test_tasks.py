"""Targets follow the rows they are drawn from, and depend on nothing but the sample's index."""

import pytest
import torch

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.conditions import merge, parse, targets
from lcg_lightning.errors import UserError
from lcg_lightning.evaluation.tasks import (
    Composed,
    Conditional,
    Editing,
    RandomOrder,
    SingleEdit,
    Undo,
    asking,
    captions,
)

SCHEMA = AttributeSchema((Attribute("Smiling"), Attribute("Hat"), Attribute("age", "continuous", low=20, high=60)))
LABELS = torch.tensor([[1.0, 0.0, 30.0], [0.0, 1.0, 50.0], [1.0, 1.0, 20.0], [0.0, torch.nan, 60.0]])
INDEX = torch.arange(4)
WIDE = AttributeSchema(tuple(Attribute(f"A{i}") for i in range(40)))
WIDE_LABELS = torch.zeros(4, 40)


def first(task, labels, index):
    (condition,) = task.steps(labels, index, SCHEMA)
    return targets(condition, SCHEMA, len(index))


def test_conditional_asks_for_the_rows_own_labels():
    rows = first(Conditional(ask=2), LABELS, INDEX)
    asked = ~rows.isnan()
    assert asked[:3].sum(1).tolist() == [2, 2, 2]
    assert (rows[asked] == LABELS[asked]).all()
    alone = torch.cat([first(Conditional(ask=2), LABELS[i : i + 1], INDEX[i : i + 1]) for i in range(4)])
    assert torch.equal(alone.nan_to_num(-1), rows.nan_to_num(-1))
    assert len({tuple(a) for a in asked[:3].tolist()}) == 3


def test_composed_conditions_take_turns():
    texts = ["Smiling | Hat", "~Hat & age=25", "~(Hat | Smiling)"]
    task = Composed("any", texts)
    assert task.kinds(INDEX).tolist() == [0, 1, 2, 0]
    for i in INDEX:
        assert task.steps(LABELS[i : i + 1], i[None], SCHEMA) == [parse(texts[i % 3], SCHEMA)]


def test_editing_asks_for_the_opposite():
    steps = Editing(["Hat", "age"]).steps(LABELS, INDEX, SCHEMA)
    asked = asked_of(steps)
    assert asked.nan_to_num(-1).tolist() == [[-1, 1, 50], [-1, 0, 30], [-1, 0, 60], [-1, -1, 20]]
    assert captions(merge(steps), SCHEMA, 4)[0] == "Hat, age 50"
    assert captions(parse("Hat | Smiling", SCHEMA), SCHEMA, 2) == ["Hat | Smiling"] * 2


def asked_of(steps):
    return targets(merge(steps), SCHEMA, 4)


def test_what_is_asked_of_the_last_image_is_the_merge_of_its_steps():
    """For each attribute the last step that asks something of a sample, by a loop over samples."""
    g = torch.Generator().manual_seed(0)
    steps = [torch.randint(0, 2, (50, 3), generator=g).float() for _ in range(3)]
    steps = [step.masked_fill(torch.rand(50, 3, generator=g) < 0.5, torch.nan) for step in steps]
    asked = targets(merge([asking(step, SCHEMA) for step in steps]), SCHEMA, 50)
    for b in range(50):
        for a in range(3):
            values = [float(step[b, a]) for step in steps if step[b, a] == step[b, a]]
            assert (values[-1] if values else None) == (None if asked[b, a].isnan() else float(asked[b, a]))


def test_random_orders_are_of_the_sample_alone():
    task = RandomOrder(["Hat", "age", "Smiling"])
    index = torch.arange(600)
    labels = LABELS[torch.arange(600) % 3]
    rows = torch.stack([targets(step, SCHEMA, 600) for step in task.steps(labels, index, SCHEMA)])
    asked = ~rows.isnan()
    assert (asked.sum(2) == 1).all()  # one attribute a step
    assert (asked.sum(0) == 1).all()  # each attribute once
    counts = torch.bincount((asked[:2].int().argmax(2) * torch.tensor([[3], [1]])).sum(0))
    assert counts[counts > 0].tolist() == pytest.approx([100] * 6, abs=45)  # all six orders, 5 deviations
    few = torch.tensor([37, 512, 4])
    again = torch.stack([targets(step, SCHEMA, 3) for step in task.steps(labels[few], few, SCHEMA)])
    assert torch.equal(again.nan_to_num(-1), rows[:, few].nan_to_num(-1))
    fixed = Editing(["Hat", "age", "Smiling"]).steps(labels, index, SCHEMA)
    assert torch.equal(rows.nansum(0), torch.stack([targets(step, SCHEMA, 600) for step in fixed]).nansum(0))


def test_single_edits_take_turns_and_undo_asks_for_the_label_again():
    single, undo = SingleEdit(["Hat", "age"]), Undo(["Hat", "age"])
    wanted = [[-1, 1, -1], [-1, -1, 30], [-1, 0, -1], [-1, -1, 20]]
    assert first(single, LABELS, INDEX).nan_to_num(-1).tolist() == wanted
    there, back = (targets(step, SCHEMA, 4).nan_to_num(-1).tolist() for step in undo.steps(LABELS, INDEX, SCHEMA))
    assert there == wanted
    assert back == [[-1, 0, -1], [-1, -1, 50], [-1, 1, -1], [-1, -1, 60]]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (lambda: Conditional(ask=4).steps(LABELS, INDEX, SCHEMA), "asks for 4 of 3"),
        (lambda: Conditional(attributes=["Smilling"]).steps(LABELS, INDEX, SCHEMA), "did you mean Smiling"),
        (lambda: Conditional(ask=20).steps(WIDE_LABELS, INDEX, WIDE), "40 attributes have 137846528820 subsets of 20"),
        (lambda: Composed("any", []), "task any: no conditions"),
        (lambda: Composed("any", ["Hat |"]).steps(LABELS, INDEX, SCHEMA), "column 6"),
        (lambda: Editing([]), "no attributes"),
    ],
)
def test_wrong_tasks_are_one_line(task, message):
    with pytest.raises(UserError, match=message) as error:
        task()
    assert "\n" not in str(error.value)
