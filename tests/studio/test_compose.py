import asyncio
import html
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from gradio.state_holder import SessionState

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.conditions import parse
from lcg_lightning.errors import UserError
from lcg_lightning.judges.load import load_attribute_judge
from lcg_lightning.studio.compose import MOST_CHARACTERS, Sampling, composer, examples, titles
from lcg_lightning.studio.composed import finished, progress, verdict
from lcg_lightning.studio.words import Asked

SCHEMA = AttributeSchema(
    (
        Attribute("Hat"),
        Attribute("Smiling"),
        Attribute("Hair", "categorical", ("black", "gray")),
        Attribute("Age", "continuous", low=18, high=80),
    )
)


def text_of(page):
    return html.unescape(re.sub("<[^>]*>", "", page))


@pytest.mark.parametrize(
    ("typed", "said", "marked"),
    [
        ("Hat & (Smilng | Hair=gray)", "Column 8: unknown attribute 'Smilng'; did you mean Smiling?", "Smilng"),
        ("Hat &", "Column 6: expected an attribute", " "),
        ("Hat <b>", "Column 5: expected '&' or '|', found '<b>'", "<b>"),
        ('"Waring Hat" & Hat', "Column 1: unknown attribute 'Waring Hat'", '"Waring Hat"'),
        ("Hat & ~Hat", "It asks for something impossible; no value of Hat satisfies it.", None),
        ("", "Type a condition, such as Hat & ~Smiling & Age=64.", None),
        (" \n ", "Type a condition", None),
        ("Hat & " * 2000 + "Hat", f"12,003 characters; this page takes at most {MOST_CHARACTERS:,}", None),
        ("Hat & " * 300 + "Hit" + " & Hat" * 30, "Column 1801: unknown attribute 'Hit'", "Hit"),
    ],
)
def test_a_mistake_is_a_sentence_that_names_its_place(typed, said, marked):
    page = verdict(typed, SCHEMA)
    assert said in text_of(page)
    assert "wrong" in page
    assert len(page) < 1000
    found = re.search("<mark>(.*)</mark>", page)
    assert (found and html.unescape(found[1])) == marked


def test_a_condition_is_read_back():
    assert text_of(verdict("hat&(age=60)", SCHEMA)) == "Reads as Hat & Age=60"


@pytest.mark.parametrize("size", range(1, 5))
def test_examples_are_conditions_on_any_attributes(size):
    quoted = [Attribute("Wearing Hat"), Attribute("age (years)", "continuous", low=0, high=80)]
    for attributes in (SCHEMA.attributes[:size], SCHEMA.attributes[-size:], quoted[: size % 2 + 1]):
        schema = AttributeSchema(attributes)
        assert examples(schema)
        for text in examples(schema):
            parse(text, schema)


def test_samples_appear_batch_by_batch_with_what_a_judge_reads(resources):
    sampling = Sampling(resources, composer(resources, "LCG"), Asked("Smiling & 3*~Hat", 5, 0, 2))
    counts = []
    for _ in sampling.batches():
        counts.append(len(sampling.samples))
        assert f'value="{counts[-1]}"' in progress(sampling)
    assert counts == [2, 4, 5]
    judge = load_attribute_judge("synthfaces").select(resources.schema)
    pictures = torch.from_numpy(np.stack([sample.picture for sample in sampling.samples])).permute(0, 3, 1, 2)
    outputs = judge(pictures.float() / 127.5 - 1)
    smiling, hat = (outputs[:, resources.schema.head(name)].sigmoid()[:, 0] for name in ("Smiling", "Hat"))
    chances = torch.tensor([sample.chance for sample in sampling.samples])
    torch.testing.assert_close(chances, smiling * (1 - hat), rtol=0.02, atol=0.01)  # pictures are rounded to 8 bits
    page = finished(sampling, "LCG", 1.0)
    for i, sample in enumerate(sampling.samples):
        assert f'alt="Sample {i}, probability {sample.chance:.2f}, {sample.read}"' in page
        assert re.fullmatch(r"Smiling \d+\s%, Hat \d+\s%", sample.read)
    assert page.count("<img") == 5
    assert set(re.findall(r'download="([^"]*)" href="data:', page)) == {"samples.png", "samples.safetensors"}


@pytest.mark.parametrize("n", [0, 65])
def test_numbers_out_of_range_are_refused(n, resources):
    with pytest.raises(UserError, match=f"1 to 64 samples, not {n}"):
        Sampling(resources, composer(resources, "LCG"), Asked("Hat", n, 0, 8))


def test_every_method_samples_or_says_why_not(resources):
    for title in titles(resources):
        method = composer(resources, title, scale=1.0)  # the slider has a value where it is hidden, too
        sampling = Sampling(resources, method, Asked("Smiling & ~Hat", 2, 0, 8))
        assert len(list(sampling.batches())[-1]) == 2
    with pytest.raises(UserError, match="choice"):
        list(Sampling(resources, composer(resources, "Latent arithmetic"), Asked("Hat | Bald", 2, 0, 8)).batches())


def test_a_method_that_needs_a_prior_and_has_none_is_not_offered(resources):
    names = ["Regression, one move", "Latent arithmetic", "Nearest training face"]
    without = replace(resources, methods={name: resources.methods[name] for name in names})
    assert titles(without) == ["Nearest training face"]


def test_a_negative_seed_is_refused(resources):
    with pytest.raises(UserError, match="seed -1 must be 0 or more"):
        list(Sampling(resources, composer(resources, "LCG"), Asked("Hat", 1, -1, 8)).batches())


@pytest.mark.parametrize(
    ("moved", "complaint"),
    [
        ({"count": 0}, "Ask for 1 to 64 samples, not 0."),
        ({"count": None}, "Ask for 1 to 64 samples, not 0."),
        ({"scale": -1}, "scale is -1"),
    ],
)
def test_the_page_refuses_a_number_in_a_sentence(moved, complaint, page):
    handler = next(fn for fn in page.fns.values() if getattr(fn.fn, "__name__", "") == "sample")
    given = {block.elem_id.removeprefix("compose-"): block.value for block in handler.inputs} | moved
    output = asyncio.run(page.process_api(handler, list(given.values()), state=SessionState(page)))
    shown = dict(zip([block.elem_id for block in handler.outputs], output["data"], strict=True))
    assert complaint in text_of(shown["compose-notice"])
