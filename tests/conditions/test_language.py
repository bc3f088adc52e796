import pytest
import torch

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.conditions import And, Is, Not, Or, Scaled, conjunction, names, parse, to_text
from lcg_lightning.conditions.language import MAX_DEPTH, ConditionError
from lcg_lightning.errors import UserError
from tests.conditions.schema import SCHEMA, F, H, S


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("smiling", S),
        ("Smiling & Hat | ~5_o_clock_shadow", Or((And((S, H)), Not(F)))),
        ("Smiling&(Hat|5_o_Clock_Shadow)", And((S, Or((H, F))))),
        ("~~Smiling & ((Hat))", And((Not(Not(S)), H))),
        ("~Hat=0", Not(Is("Hat", 0.0))),
        ("HAIR=Gray | hair = 1", Or((Is("Hair", 2.0), Is("Hair", 1.0)))),
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
    assert to_text(Scaled(0.1 + 0.2, S), SCHEMA) == "0.30000000000000004*Smiling"


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
    with pytest.raises(ConditionError) as caught:
        parse(text, SCHEMA)
    message = str(caught.value)
    assert message == f'condition "{text}": column {column}: {caught.value.complaint}'
    assert caught.value.column == column
    assert complaint in caught.value.complaint
    assert "\n" not in message


@pytest.mark.parametrize(
    "text",
    [
        "Smiling & ~Smiling",
        "Hair=black & hair=gray",
        "2*Smiling & 3*~Smiling",
        "(Smiling | Hat) & ~Smiling & ~Hat",
        "~(Smiling | ~Smiling)",
        "(Smiling & Hat | ~Smiling & ~Hat) & (Smiling & ~Hat | ~Smiling & Hat)",
        "Yaw=20 & yaw=-20",
        "2*Yaw=20 & Hat & Yaw=21",
    ],
)
def test_what_nothing_satisfies_is_refused_when_it_is_read(text):
    with pytest.raises(UserError, match=r"^condition .*: it asks for something impossible; [^\n]*$"):
        parse(text, SCHEMA)
    parse("Smiling | ~Smiling", SCHEMA)
    parse("Yaw=20 & Yaw=20", SCHEMA)


@pytest.mark.parametrize("deep", ["(" * 900 + "Smiling" + ")" * 900, "~" * 900 + "Hat", "~(" * 450 + "Hat" + ")" * 450])
def test_deep_nesting_is_one_line(deep):
    with pytest.raises(UserError, match=rf"column {MAX_DEPTH + 2}: parentheses and ~ are nested more than") as caught:
        parse(deep, SCHEMA)
    assert len(str(caught.value)) < 400
    assert parse("(" * 50 + "Hat" + ")" * 50, SCHEMA) == H
    assert len(parse(" & ".join(["Hat"] * 20_000), SCHEMA).terms) == 20_000


ODD = AttributeSchema(
    (
        Attribute("Wearing Hat"),
        Attribute("age (years)", "continuous", low=18, high=80),
        Attribute("Hair", "categorical", ("dark|wavy", "gray")),
        *(Attribute(f"a{symbol}b") for symbol in "()&|~=*, '"),
    )
)


def test_quoted_names_are_read_and_written():
    text = '2*"wearing hat" & "Age (years)"=60 & ~(hair="dark|wavy" | "a*b")'
    tree = parse(text, ODD)
    assert names(tree) == ("Wearing Hat", "age (years)", "Hair", "a*b")
    assert to_text(tree, ODD) == '2*"Wearing Hat" & "age (years)"=60 & ~(Hair="dark|wavy" | "a*b")'
    asked = [Is(a.name, 0.0 if a.kind != "continuous" else 20.0) for a in ODD]
    assert [parse(to_text(each, ODD), ODD) for each in asked] == asked
    assert to_text(Is("Wearing Hat", torch.zeros(2)), ODD) == '"Wearing Hat"=?'


@pytest.mark.parametrize(
    ("text", "column", "complaint"),
    [
        ("a,b & Wearing Hat", 7, 'did you mean "Wearing Hat"? (known: "Wearing Hat", "age (years)", Hair'),
        ('"Wearing Hat" & "age (years)', 17, "the quote is not closed"),
        ('"Wearing Hat" & "age (years)"', 17, 'such as "age (years)"=49'),
        ('"Wearing Hat" "a*b"', 15, "expected '&' or '|', found '\"a*b\"'"),
        ('Hair="a|b"', 6, 'one of "dark|wavy", gray, not'),
        ('"" & Hair=gray', 1, "unknown attribute ''"),
    ],
)
def test_columns_count_quotes(text, column, complaint):
    with pytest.raises(ConditionError) as caught:
        parse(text, ODD)
    assert caught.value.column == column
    assert complaint in caught.value.complaint


def test_messages_stay_on_one_line():
    with pytest.raises(UserError, match=r'^condition "Hat & Hit": column 7: unknown attribute [^\n]*$'):
        parse("Hat &\nHit", SCHEMA)
