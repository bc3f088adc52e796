import itertools
import math
import time
from random import Random

import pytest
import torch
from torch.distributions import Normal

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.conditions import And, Is, Not, Or, Scaled, conjunction, log_prob, parse
from lcg_lightning.conditions.probability import MAX_CASES
from lcg_lightning.errors import UserError
from tests.conditions.schema import SCHEMA, F, H, S


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


# All but the first four name an attribute more than once.
REPEATED = [
    "Smiling | Hat & Hair=gray",
    "Hair=gray | Smiling",
    "~Hair=gray",
    "~(Smiling & Hat)",
    "Smiling & Smiling",
    "Smiling | Smiling",
    "Hair=black | Hair=gray",
    "~Hair=black & ~Hair=gray",
    "(Smiling & Hat) | (Smiling & 5_o_Clock_Shadow)",
    "Smiling & (Smiling | Hat)",
    "(Smiling | Hat) & (Smiling | 5_o_Clock_Shadow) & (Hat | 5_o_Clock_Shadow)",
    "Smiling & ~Hat | ~Smiling & Hat",
    "(Smiling | Hair=black) & (Hat | ~Hair=black)",
    "(Smiling & Hair=black | Hat & Hair=gray) & ~(Smiling & Hat & Hair=black)",
    "~((Smiling | ~Hat & Hair=1) & (Hat | ~(Smiling & Hair=2)))",
    "Hat & Smiling | Hat & ~Smiling",
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


def test_with_a_tolerance_numbers_have_probabilities():
    """Against torch.distributions, also far in the tails, where the two values of the CDF are nearly equal."""
    out = outputs(50)
    yaw = out[:, SCHEMA.head("Yaw")]
    yaw[:, 1] = torch.linspace(-6, 2, 50)
    head = Normal(yaw[:, 0], (yaw[:, 1] / 2).exp())
    attribute = SCHEMA["Yaw"]
    unit = (24 - attribute.low) / (attribute.high - attribute.low)
    expected = head.cdf(torch.tensor(unit + 0.1)) - head.cdf(torch.tensor(unit - 0.1))
    found = log_prob(parse("Yaw=24 & 2*Smiling", SCHEMA), out, SCHEMA, tolerance=0.1)
    smiling = 2 * torch.nn.functional.logsigmoid(out[:, 0])
    torch.testing.assert_close((found - smiling).exp(), expected, rtol=1e-6, atol=1e-12)
    assert found.isfinite().all()


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


@pytest.mark.parametrize("text", [*TREES, *REPEATED, "Yaw=20", "2*Yaw=-40 & (Smiling | Hat)"])
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


def test_trees_built_by_hand_meet_the_same_refusals():
    out = outputs()
    for tree in (
        Not(Is("Yaw", 3.0)),
        Or((S, Scaled(2.0, H))),
        Not(Is("Hat", torch.zeros(6))),
    ):
        with pytest.raises(UserError, match=r"~ or \|"):
            log_prob(tree, out, SCHEMA)


def test_values_that_an_attribute_does_not_have_are_refused():
    for tree in (Is("Smiling", 0.5), Is("Smiling", 7.0), Not(Is("Hair", 3.0)), Is("Hair", math.nan)):
        with pytest.raises(UserError, match="takes 0 to"):
            log_prob(tree, outputs(), SCHEMA)


@pytest.mark.parametrize("text", REPEATED)
def test_attributes_named_more_than_once_against_enumeration(text):
    out = outputs()
    for tree in (parse(text, SCHEMA), Not(parse(text, SCHEMA))):
        torch.testing.assert_close(log_prob(tree, out, SCHEMA), probability(tree, out).log(), rtol=1e-12, atol=1e-12)
        assert torch.autograd.gradcheck(lambda x, t=tree: log_prob(t, x, SCHEMA), outputs(2).requires_grad_())


def test_random_trees_against_enumeration():
    """Trees of up to 12 values over 4 attributes, so most name some of them several times."""
    random = Random(0)
    out = outputs(4)
    impossible = 0

    def tree(size):
        if size == 1:
            name = random.choice(["Smiling", "Hat", "5_o_Clock_Shadow", "Hair"])
            return Is(name, float(random.randrange(3 if name == "Hair" else 2)))
        if random.random() < 0.2:
            return Not(tree(size - 1))
        left = random.randrange(1, size)
        return random.choice((And, Or))((tree(left), tree(size - left)))

    for _ in range(300):
        condition = tree(random.randrange(1, 13))
        mass = probability(condition, out)
        if mass.max() == 0:
            impossible += 1
            with pytest.raises(UserError, match="impossible"):
                log_prob(condition, out, SCHEMA)
        else:
            torch.testing.assert_close(log_prob(condition, out, SCHEMA), mass.log(), rtol=1e-10, atol=1e-10)
    assert 0 < impossible < 100


def test_what_always_holds_asks_nothing():
    out = outputs().requires_grad_()
    for text in ("Smiling | ~Smiling", "~Hair=black | ~Hair=gray", "~(Hat & Smiling & ~Hat)"):
        value = log_prob(parse(text, SCHEMA), out, SCHEMA)
        assert (value == 0).all()
        assert (torch.autograd.grad(value.sum(), out)[0] == 0).all()


def test_the_same_number_twice_is_asked_once_and_scaled_terms_stand_alone():
    out = outputs()
    once = log_prob(parse("Yaw=3 & Hat", SCHEMA), out, SCHEMA)
    torch.testing.assert_close(log_prob(parse("Yaw=3 & Hat & Yaw=3 & Hat", SCHEMA), out, SCHEMA), once)
    torch.testing.assert_close(
        log_prob(parse("2*(Hat & (Hat | Smiling)) & Hat", SCHEMA), out, SCHEMA), 3 * log_prob(H, out, SCHEMA)
    )


@pytest.mark.parametrize("text", [t for t in REPEATED if "|" in t])
def test_de_morgan_holds_to_the_last_bit_where_attributes_repeat(text):
    def dual(condition):
        match condition:
            case And(terms):
                return Or(tuple(dual(t) for t in terms))
            case Or(terms):
                return And(tuple(dual(t) for t in terms))
            case Not(term):
                return term
            case _:
                return Not(condition)

    out = outputs(64, dtype=torch.float32) * 20
    tree = parse(text, SCHEMA)
    assert torch.equal(log_prob(Not(tree), out, SCHEMA), log_prob(dual(tree), out, SCHEMA))


def test_too_many_cases_are_refused_and_many_are_quick():
    """Exactly one of 20 attributes is 20 cases; an odd number of 12 is 2 ** 11."""
    many = AttributeSchema(tuple(Attribute(f"a{i}") for i in range(20)))
    names = many.names
    one = Or(tuple(And(tuple(Is(n, float(n == chosen)) for n in names)) for chosen in names))
    out = torch.randn(3, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p = out.sigmoid()
    expected = sum(p[:, i] / (1 - p[:, i]) for i in range(20)) * (1 - p).prod(1)
    begin = time.process_time()
    torch.testing.assert_close(log_prob(one, out, many).exp(), expected)
    assert time.process_time() - begin < 2  # a few hundredths

    def odd(names):
        if len(names) == 1:
            return Is(names[0])
        half = len(names) // 2
        left, right = odd(names[:half]), odd(names[half:])
        return Or((And((left, Not(right))), And((Not(left), right))))

    torch.testing.assert_close(log_prob(odd(names[:8]), out, many).exp(), (1 - (1 - 2 * p[:, :8]).prod(1)) / 2)
    begin = time.process_time()
    with pytest.raises(UserError, match=f"more than {MAX_CASES} cases"):
        log_prob(odd(names[:12]), out, many)
    assert time.process_time() - begin < 30  # about 1


def test_a_target_per_sample_of_an_attribute_named_again_is_refused():
    some = Is("Hat", torch.tensor([1.0, math.nan, 0, 0, 0, 0]))
    for tree in (And((some, some)), And((H, some)), And((some, Or((S, H))))):
        with pytest.raises(UserError, match="Hat has a target per sample and is named again"):
            log_prob(tree, outputs(), SCHEMA)
