"""Whether labels meet a condition, against plain recursion over single rows and against sure probabilities."""

import itertools
import math
import random

import pytest
import torch

from lcg_lightning.conditions import And, Is, Not, Or, Scaled, definite, log_prob, met, named, names, parse, take
from lcg_lightning.errors import UserError
from tests.conditions.schema import SCHEMA, H, S

ROWS = list(itertools.product((0, 1), (0, 1, 2), (0, 1), (-40.0, -2.1, 2.0, 9.9, 10.1, 40.0), (0, 1)))
"""Every row of the discrete attributes, at yaws on both sides of what is asked."""


def tree(draw, depth):
    """A random condition, in which yaw may stand anywhere."""
    kind = draw.choice(("is", "is", "not", "and", "or", "scaled")) if depth else "is"
    if kind == "is":
        name = draw.choice(SCHEMA.names)
        return Is(name, {"Hair": draw.randrange(3), "Yaw": draw.choice((0.0, 6.0, 30.0))}.get(name, draw.randrange(2)))
    if kind in ("and", "or"):
        return (And if kind == "and" else Or)(tuple(tree(draw, depth - 1) for _ in range(draw.randrange(4))))
    inner = tree(draw, depth - 1)
    return Not(inner) if kind == "not" else Scaled(2.0, inner)


def holds(condition, row):
    """One row that is wholly known."""
    match condition:
        case Is("Yaw", value):
            return abs(row[3] - value) <= 8  # a tenth of 80 degrees
        case Is(name, value):
            return row[SCHEMA.index(name)] == value
        case And(terms):
            return all(holds(t, row) for t in terms)
        case Or(terms):
            return any(holds(t, row) for t in terms)
        case Not(term):
            return not holds(term, row)
        case Scaled(_, term):
            return holds(term, row)


@pytest.fixture(scope="module")
def trees():
    draw = random.Random(0)
    return [tree(draw, draw.randrange(1, 5)) for _ in range(300)]


def test_met_is_what_plain_logic_says(trees):
    rows = torch.tensor(ROWS)
    for condition in trees:
        assert met(condition, rows, SCHEMA).tolist() == [holds(condition, row) for row in ROWS], condition


def test_met_with_unknown_labels_is_met_whatever_they_are(trees):
    draw = random.Random(1)
    met_at_all = 0
    for condition in trees[:100]:
        row, hidden = list(draw.choice(ROWS)), draw.sample(range(5), 2)
        known = torch.tensor([math.nan if i in hidden else x for i, x in enumerate(row)])
        if met(condition, known[None], SCHEMA).item():
            met_at_all += 1
            alike = [other for other in ROWS if all(other[i] == row[i] for i in {*range(5)} - {*hidden})]
            assert all(holds(condition, other) for other in alike)
    assert 5 < met_at_all < 90
    assert not met(Or((S, Not(S))), torch.full((1, 5), math.nan), SCHEMA)


@pytest.mark.parametrize(
    "text", ["~(Smiling | Hat) | Hair=gray", "(Smiling & ~Hat) | (~Smiling & Hat)", "~(Hair=black & Hat)"]
)
def test_what_is_met_has_probability_one_under_a_sure_classifier(text):
    rows = torch.tensor(ROWS)
    hair = 60 * torch.nn.functional.one_hot(rows[:, 1].long(), 3)
    sure = 60 * rows - 30
    outputs = torch.cat([sure[:, :1], hair, sure[:, 2:3], rows[:, 3:4], rows[:, 3:4], sure[:, 4:]], 1)
    condition = parse(text, SCHEMA)
    torch.testing.assert_close(log_prob(condition, outputs, SCHEMA).exp(), met(condition, rows, SCHEMA).float())


def test_targets_per_sample_are_met_named_and_taken_one_by_one():
    hats, yaws = torch.tensor([1.0, math.nan, 0.0]), torch.tensor([math.nan, 20.0, 20.0])
    condition = And((Is("Hat", hats), Scaled(2.0, Is("Yaw", yaws)), Or((S, Not(Is("Hair", 2))))))
    rows = torch.tensor([[0, 2, 1, 0, 0], [1, 2, 1, 27, 0], [1, 0, 1, 20, 0]])
    assert met(condition, rows, SCHEMA).tolist() == [False, True, False]
    asked = [[1, 1, 1, 0, 0], [1, 1, 0, 1, 0], [1, 1, 1, 1, 0]]
    assert named(condition, SCHEMA, 3).int().tolist() == asked
    for i in range(3):
        for rows_of in (torch.tensor([i]), torch.arange(3) == i):
            alone = take(condition, rows_of)
            assert met(alone, rows[i : i + 1], SCHEMA).item() == met(condition, rows, SCHEMA)[i].item()
            assert torch.equal(named(alone, SCHEMA, 1)[0], named(condition, SCHEMA, 3)[i])


def test_names_and_definite_targets(trees):
    for condition in trees:
        (asked,) = named(condition, SCHEMA, 1).tolist()
        assert asked == [name in names(condition) for name in SCHEMA.names]
    assert definite(Or((S, H)), SCHEMA, 1) is None
    assert definite(And((S, Not(H))), SCHEMA, 1).nan_to_num(-1).tolist() == [[1, -1, 0, -1, -1]]
    with pytest.raises(UserError, match="unknown attribute"):
        met(Is("Smilling"), torch.zeros(1, 5), SCHEMA)
