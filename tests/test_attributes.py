"""The schema is a faithful layout of label rows and classifier outputs."""

import pytest
import torch

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.errors import UserError

SCHEMA = AttributeSchema(
    (
        Attribute("Smiling"),
        Attribute("hair", "categorical", classes=("black", "brown", "grey")),
        Attribute("yaw", "continuous", low=-45, high=45),
    )
)


def test_heads_tile_the_outputs():
    columns = [i for name in SCHEMA.names for i in range(SCHEMA.num_outputs)[SCHEMA.head(name)]]
    assert columns == list(range(SCHEMA.num_outputs))


def test_predictions_are_labels():
    outputs = torch.tensor([[2.0, 0, 5, 1, 0.75, -3], [-2.0, 9, 5, 1, 0.0, 0]])
    assert SCHEMA.predict(outputs).tolist() == [[1.0, 1.0, 22.5], [0.0, 0.0, -45.0]]


def test_units_and_json_round_trip():
    labels = torch.tensor([[1.0, 2.0, -15.0], [0.0, torch.nan, 45.0]])
    torch.testing.assert_close(SCHEMA.natural(SCHEMA.unit(labels)), labels, equal_nan=True)
    assert SCHEMA.unit(labels)[:, 2].tolist() == pytest.approx([1 / 3, 1.0])
    assert AttributeSchema.from_json(SCHEMA.to_json()) == SCHEMA


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SCHEMA.index("Smilng"), "did you mean Smiling"),
        (lambda: AttributeSchema((Attribute("a"), Attribute("a"))), "named twice"),
        (lambda: AttributeSchema((Attribute("Hat"), Attribute("hat"))), "hat is named twice"),
        (lambda: Attribute("a", "categorical", classes=("Red", "blue", "red")), "class red is named twice"),
        (lambda: Attribute('a"b'), "attribute 'a\"b': the name 'a\"b' is empty or holds a double quote"),
        (lambda: Attribute(""), "the name '' is empty"),
        (lambda: Attribute("two\nlines"), r"the name 'two\\nlines' is empty or holds"),
        (lambda: Attribute("a", "categorical", classes=("x", "y\u2028")), r"the name 'y\\u2028' is empty or holds"),
        (lambda: Attribute("a", "boolean"), "kind 'boolean'; use binary, categorical, continuous"),
        (lambda: AttributeSchema.from_json([{"name": "a", "sort": "binary"}]), "not a list of attributes"),
        (lambda: AttributeSchema.from_json(["a"]), "not a list of attributes"),
        (lambda: Attribute("a", "continuous", low=1, high=1), "must be below"),
        (lambda: Attribute("a", "categorical", classes=("x",)), "two or more"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_misses_count_what_met_judges_row_by_row():
    schema = AttributeSchema((Attribute("Hat"), Attribute("Age", "continuous", low=20, high=70), Attribute("Beard")))
    g = torch.Generator().manual_seed(0)

    def rows(n, unknown):
        drawn = torch.rand(n, 3, generator=g)
        drawn = torch.stack([drawn[:, 0].round(), 20 + (50 * drawn[:, 1]).round(), drawn[:, 2].round()], 1)
        return drawn.masked_fill(torch.rand(n, 3, generator=g) < unknown, torch.nan)

    labels, targets = rows(60, 0.1), rows(40, 0.4)
    expected = torch.stack([(~schema.met(labels, wanted)).sum(1) for wanted in targets])
    assert torch.equal(schema.misses(labels, targets).long(), expected)
    assert expected.unique().tolist() == [0, 1, 2, 3]
    assert not schema.misses(labels, targets.new_full((1, 3), torch.nan)).any()
