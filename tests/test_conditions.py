import itertools
import math

import pytest
import torch
from torch.distributions import Normal

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.conditions import (
    And,
    Is,
    Not,
    Or,
    Scaled,
    conjunction,
    log_prob,
    names,
    parse,
    targets,
    to_text,
)
from lcg_lightning.errors import UserError

SCHEMA = AttributeSchema(
    (
        Attribute("Smiling"),
        Attribute("Hair", "categorical", ("black", "blond", "gray")),
        Attribute("Hat"),
        Attribute("Yaw", "continuous", low=-40, high=40),
        Attribute("5_o_Clock_Shadow"),
    )
)
S, H, F = Is("Smiling"), Is("Hat"), Is("5_o_Clock_Shadow")


def outputs(n=6, seed=0, dtype=torch.float64):
    return torch.randn(n, SCHEMA.num_outputs, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 2


def probability(condition, out):
    """By enumeration: the total mass of the joint states of independent attributes in which it holds."""

    def holds(c, state):
        match c:
            case Is(name, value):
                return state[name] == value
            case And(terms):
                return all(holds(t, state) for t in terms)
            case Or(terms):
                return any(holds(t, state) for t in terms)
            case Not(term):
                return not holds(term, state)

    total = torch.zeros(len(out), dtype=out.dtype)
    mass = {n: torch.sigmoid(out[:, SCHEMA.head(n)]) for n in ("Smiling", "Hat", "5_o_Clock_Shadow")}
    mass = {n: torch.cat([1 - p, p], 1) for n, p in mass.items()}
    mass["Hair"] = out[:, SCHEMA.head("Hair")].softmax(1)
    for state in itertools.product(*(range(m.shape[1]) for m in mass.values())):
        state = dict(zip(mass, state, strict=True))
        if holds(condition, state):
            total += torch.stack([mass[n][:, k] for n, k in state.items()]).prod(0)
    return total


# Each attribute appears once, so independence given the outputs makes enumeration exact.
TREES = [
    "Smiling",
    "Smiling=0",
    "~Hat",
    "Hair=blond",
    "~Hair=gray",
    "Smiling & ~Hat",
    "Smiling | Hat",
    "~(Smiling & Hair=1)",
    "Smiling & (Hat | ~Hair=black)",
    "(Smiling | Hat) & ~(Hair=black | 5_o_Clock_Shadow)",
    "~(Smiling & ~(Hat | Hair=2 & 5_o_Clock_Shadow))",
]


@pytest.mark.parametrize("text", TREES)
def test_against_enumeration_of_all_joint_states(text):
    out = outputs()
    tree = parse(text, SCHEMA)
    torch.testing.assert_close(log_prob(tree, out, SCHEMA), probability(tree, out).log(), rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(lambda x: log_prob(tree, x, SCHEMA), outputs(2).requires_grad_())


def test_continuous_literal_scale_and_sum():
    out = outputs()
    mean, log_variance = out[:, SCHEMA.head("Yaw")].T
    density = Normal(mean, (log_variance / 2).exp()).log_prob(torch.tensor(0.75, dtype=out.dtype))
    torch.testing.assert_close(log_prob(parse("yaw=20", SCHEMA), out, SCHEMA), density)
    expected = 2.5 * density + log_prob(S, out, SCHEMA) + 0.5 * log_prob(Or((H, F)), out, SCHEMA)
    tree = parse("2.5*Yaw=20 & Smiling & .5*(Hat | 5_o_Clock_Shadow)", SCHEMA)
    torch.testing.assert_close(log_prob(tree, out, SCHEMA), expected)
    assert torch.autograd.gradcheck(lambda x: log_prob(tree, x, SCHEMA), outputs(2).requires_grad_())


def test_de_morgan_and_double_negation_hold_to_the_last_bit():
    out = outputs(64, dtype=torch.float32) * 20
    g = Is("Hair", 2.0)
    for left, right in (
        (Not(And((S, H, g))), Or((Not(S), Not(H), Not(g)))),
        (Not(Or((S, H, g))), And((Not(S), Not(H), Not(g)))),
        (Not(Not(Or((S, H)))), Or((S, H))),
        (Is("Smiling", 0.0), Not(S)),
    ):
        assert torch.equal(log_prob(left, out, SCHEMA), log_prob(right, out, SCHEMA))


@pytest.mark.parametrize("text", [*TREES, "Yaw=20", "2*Yaw=-40 & (Smiling | Hat)"])
def test_extreme_outputs_give_finite_values_and_gradients(text):
    corners = list(itertools.product((-1e4, 1e4), repeat=SCHEMA.num_outputs))
    out = torch.tensor(corners, dtype=torch.float32).requires_grad_()
    value = log_prob(parse(text, SCHEMA), out, SCHEMA)
    (gradient,) = torch.autograd.grad(value.sum(), out)
    assert value.isfinite().all()
    assert gradient.isfinite().all()


def test_gradients_do_not_vanish_where_the_condition_fails():
    """An OR of two hopeless terms keeps the slope 1/2 for each, where log(1 - prod(1 - p)) would be 0/0."""
    out = torch.zeros(1, SCHEMA.num_outputs)
    out[:, SCHEMA.head("Smiling")] = out[:, SCHEMA.head("Hat")] = -1e4
    out.requires_grad_()
    value = log_prob(parse("Smiling | Hat", SCHEMA), out, SCHEMA)
    (gradient,) = torch.autograd.grad(value.sum(), out)
    assert value.item() == pytest.approx(-1e4 + math.log(2))
    assert gradient[0, [SCHEMA.index("Smiling"), SCHEMA.head("Hat").start]].tolist() == pytest.approx(
        [0.5, 0.5], rel=1e-3
    )


def test_per_sample_targets():
    """A row of targets is worth the sum of its known literals; free ones add nothing, gradient included."""
    out = outputs(3).requires_grad_()
    nan = math.nan
    rows = torch.tensor([[1, 2, nan, -10, nan], [0, 0, 1, 40, 0], [nan] * 5])
    value = log_prob(conjunction(rows, SCHEMA), out, SCHEMA)
    texts = ["Smiling & Hair=gray & Yaw=-10", "~Smiling & Hair=black & Hat & Yaw=40 & ~5_o_Clock_Shadow"]
    expected = [log_prob(parse(t, SCHEMA), out, SCHEMA)[i] for i, t in enumerate(texts)]
    torch.testing.assert_close(value, torch.stack([*expected, out.new_zeros(())]))
    (gradient,) = torch.autograd.grad(value.sum(), out)
    assert gradient.isfinite().all()
    assert (gradient[2] == 0).all()
    torch.testing.assert_close(targets(conjunction(rows, SCHEMA), SCHEMA, 3), rows, equal_nan=True)


def test_targets_of_a_conjunction():
    nan = math.nan
    asked = targets(parse("2*yaw=-20 & ~(Smiling | ~Hat) & hair=blond", SCHEMA), SCHEMA, 2)
    torch.testing.assert_close(asked, torch.tensor([[0, 1, 1, -20, nan]] * 2), equal_nan=True)
    for text, complaint in (
        ("Smiling | Hat", "leaves a choice"),
        ("~(Smiling & Hat)", "leaves a choice"),
        ("~Hair=black", "Hair"),
        ("Smiling & Hat & ~Smiling", "Smiling to have two values"),
    ):
        with pytest.raises(UserError, match=complaint):
            targets(parse(text, SCHEMA), SCHEMA, 2)


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("smiling", S),
        ("Smiling & Hat | ~5_o_clock_shadow", Or((And((S, H)), Not(F)))),
        ("Smiling&(Hat|5_o_Clock_Shadow)", And((S, Or((H, F))))),
        ("~~Smiling & ((Hat))", And((Not(Not(S)), H))),
        ("~Hat=0", Not(Is("Hat", 0.0))),
        ("HAIR=Gray & hair = 1", And((Is("Hair", 2.0), Is("Hair", 1.0)))),
        (
            "1e1*Yaw=-0.5 & .5*(Smiling | Hat)",
            And((Scaled(10.0, Is("Yaw", -0.5)), Scaled(0.5, Or((S, H))))),
        ),
        ("2*~(Smiling & Hat)", Scaled(2.0, Not(And((S, H))))),
    ],
)
def test_parse_and_its_inverse(text, tree):
    assert parse(text, SCHEMA) == tree
    assert parse(to_text(tree, SCHEMA), SCHEMA) == tree


def test_text_is_the_plainest():
    tree = parse("((Smiling=1)) & 2.0*hair=2 & (~Hat | Smiling=0)", SCHEMA)
    assert to_text(tree, SCHEMA) == "Smiling & 2*Hair=gray & (~Hat | Smiling=0)"
    assert to_text(conjunction(torch.zeros(1, 5), SCHEMA), SCHEMA).startswith("Smiling=? & Hair=?")
    assert names(tree) == ("Smiling", "Hair", "Hat")


@pytest.mark.parametrize(
    ("text", "column", "complaint"),
    [
        ("Smiling & (Hat", 15, "expected ')'"),
        ("", 1, "expected an attribute"),
        ("Smiling &", 10, "expected an attribute"),
        ("Smiling & | Hat", 11, "expected an attribute, found '|'"),
        ("Smiling Hat", 9, "expected '&' or '|', found 'Hat'"),
        ("Smiling)", 8, "expected '&' or '|', found ')'"),
        ("Hat & Smilng", 7, "did you mean Smiling?"),
        ("Hat=", 5, "expected a value"),
        ("Hat=0.5", 5, "Hat takes 0 or 1, not '0.5'"),
        ("Hat=yes", 5, "Hat takes 0 or 1"),
        ("Hair", 1, "Hair needs a value, such as Hair=black"),
        ("Smiling & Yaw", 11, "Yaw needs a value, such as Yaw=0"),
        ("Hair=red", 6, "one of black, blond, gray"),
        ("Hair=3", 6, "one of black, blond, gray"),
        ("Hair=0.5", 6, "one of black, blond, gray"),
        ("Yaw=41", 5, "from -40 to 40"),
        ("Yaw=nan", 5, "from -40 to 40"),
        ("Smiling | Yaw=3", 11, "no complement"),
        ("~(Smiling & Yaw=3)", 13, "no complement"),
        ("2*Smiling | Hat", 1, "a scale may only stand"),
        ("Hat & (2*Smiling)", 8, "a scale may only stand"),
        ("Hat & ~2*Smiling", 8, "a scale may only stand"),
        ("2*3*Smiling", 3, "a scale may only stand"),
        ("x*Smiling", 1, "'x' is not a scale"),
        ("-1*Smiling", 1, "'-1' is not a scale"),
        ("inf*Smiling", 1, "'inf' is not a scale"),
    ],
)
def test_mistakes_are_pointed_at(text, column, complaint):
    with pytest.raises(UserError) as caught:
        parse(text, SCHEMA)
    message = str(caught.value)
    assert message.startswith(f'condition "{text}": column {column}: ')
    assert complaint in message
    assert "\n" not in message


def test_trees_built_by_hand_meet_the_same_refusals():
    out = outputs()
    for tree in (
        Not(Is("Yaw", 3.0)),
        Or((S, Scaled(2.0, H))),
        Not(Is("Hat", torch.zeros(6))),
    ):
        with pytest.raises(UserError, match=r"~ or \|"):
            log_prob(tree, out, SCHEMA)
