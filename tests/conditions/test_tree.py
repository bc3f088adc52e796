import math

import pytest
import torch

from lcg_lightning.conditions import And, Is, Not, Or, Scaled, conjunction, merge, names, parse, targets, to_text
from lcg_lightning.errors import UserError
from tests.conditions.schema import SCHEMA, H, S

nan = math.nan


def test_targets_of_a_conjunction():
    asked = targets(parse("2*yaw=-20 & ~(Smiling | ~Hat) & hair=blond", SCHEMA), SCHEMA, 2)
    torch.testing.assert_close(asked, torch.tensor([[0, 1, 1, -20, nan]] * 2), equal_nan=True)
    for text, complaint in (
        ("Smiling | Hat", "leaves a choice"),
        ("~(Smiling & Hat)", "leaves a choice"),
        ("~Hair=black", "Hair"),
    ):
        with pytest.raises(UserError, match=complaint):
            targets(parse(text, SCHEMA), SCHEMA, 2)
    with pytest.raises(UserError, match="Smiling to have two values"):
        targets(And((S, H, Not(S))), SCHEMA, 2)


def test_names_are_in_order_of_appearance():
    assert names(parse("Hair=black & 2*(Smiling | Hair=gray) & ~Hat", SCHEMA)) == ("Hair", "Smiling", "Hat")


@pytest.mark.parametrize(
    ("texts", "together"),
    [
        (["Smiling", "~Smiling"], "~Smiling"),
        (["~Smiling", "Hat", "Smiling"], "Hat & Smiling"),
        (["Smiling & Hat & Yaw=10", "yaw=-10 & ~Hat"], "Smiling & Yaw=-10 & ~Hat"),
        (["Hair=black", "Hair=gray | Hair=blond", "Hat"], "(Hair=gray | Hair=blond) & Hat"),
        (["Smiling | Hat", "Yaw=3", "~Hat"], "Yaw=3 & ~Hat"),  # a choice goes as a whole
        (["~(Smiling | Hat)", "Smiling"], "~Hat & Smiling"),  # De Morgan: that was no choice
        (["2*(Smiling & Hat)", "~Smiling"], "2*Hat & ~Smiling"),
        (["2*(Smiling & (Smiling | Hat))", "Yaw=3"], "2*(Smiling & (Smiling | Hat)) & Yaw=3"),
        (["2*(Smiling & (Smiling | Hat))", "~Hat"], "~Hat"),
        (["3*Smiling & Hat", "0.5*~Smiling"], "Hat & 0.5*~Smiling"),
    ],
)
def test_a_later_condition_replaces_what_it_names_and_keeps_the_rest(texts, together):
    assert to_text(merge([parse(text, SCHEMA) for text in texts]), SCHEMA) == together


def test_targets_per_sample_replace_those_samples_alone():
    first = torch.tensor([[1, 2, nan, -10, nan], [0, nan, 1, 40, 0], [nan] * 5])
    then = torch.tensor([[0, nan, 1, nan, nan], [nan, 1, nan, -40, nan], [1, nan, nan, nan, nan]])
    together = merge([conjunction(first, SCHEMA), conjunction(then, SCHEMA)])
    torch.testing.assert_close(targets(together, SCHEMA, 3), torch.where(then.isnan(), first, then), equal_nan=True)

    some = Is("Hat", torch.tensor([0, nan, 1]))
    hats = targets(merge([H, S, some]), SCHEMA, 3)
    torch.testing.assert_close(hats[:, SCHEMA.index("Hat")], torch.tensor([0.0, 1, 1]))
    assert targets(merge([some, Not(H)]), SCHEMA, 3)[:, SCHEMA.index("Hat")].tolist() == [0, 0, 0]
    every = Is("Hat", torch.tensor([0.0, 1, 1]))
    assert merge([Or((S, H)), every]) == every
    for kept, later in ((Or((S, H)), some), (Not(H), some), (H, Scaled(2.0, some))):
        with pytest.raises(UserError, match="samples without a target for Hat"):
            merge([kept, later])
