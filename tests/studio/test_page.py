"""The Edit page without a browser: what its handlers do with a visitor's inputs."""

import asyncio

import pytest
from gradio.state_holder import SessionState

from lcg_lightning.generators.base import Generator
from lcg_lightning.studio import sources
from lcg_lightning.studio.app import build
from lcg_lightning.studio.session import Session


def find(page, mark):
    return next(block for block in page.blocks.values() if getattr(block, "elem_id", None) == mark)


def send(page, visitor, turn, **moved):
    """The page's controls as a browser sends them, to the handler of edits."""
    handler = next(fn for fn in page.fns.values() if fn.fn.__name__ == "edit")
    standing = dict(zip(visitor.resources.schema.names, visitor.values(), strict=True)) | moved
    values = {find(page, f"edit-{name}")._id: value for name, value in standing.items()}
    state = SessionState(page)
    state[handler.inputs[0]._id] = visitor
    inputs = [None, turn, *(values.get(block._id, block.value) for block in handler.inputs[2:])]
    return asyncio.run(page.process_api(handler, inputs, state=state))


@pytest.fixture
def visitor(resources):
    return Session(resources, resources.worker.do(sources.row, resources, 5))


def test_moved_controls_are_edits_unless_they_are_those_of_an_earlier_face(resources, page, visitor):
    old = visitor.turn
    send(page, visitor, old, Age=33)
    assert visitor.texts == ("Age=33",)
    visitor.start(resources.worker.do(sources.row, resources, 6))
    send(page, visitor, old, Age=70)
    assert visitor.texts == ()


@pytest.mark.parametrize(("face", "age"), [(5, 44), (6, 33)])
def test_a_comparison_ends_where_the_visitor_goes_on_meanwhile(face, age, resources, page, visitor):
    edit = next(fn for fn in page.fns.values() if fn.fn.__name__ == "edit")
    every = find(page, "edit-compare")._id
    given = [each._id == every or each.value for each in edit.inputs[2:7]]
    moved = dict(zip(resources.schema.names, visitor.values(), strict=True)) | {"Age": 33}
    answers = edit.fn(visitor, visitor.turn, *given, *moved.values())
    others = find(page, "edit-others")
    assert others not in next(answers)
    assert "LCG" in next(answers)[others]
    if face == 6:
        visitor.start(resources.worker.do(sources.row, resources, face))
    visitor.set(list((dict(zip(moved, visitor.values(), strict=True)) | {"Age": age}).values()))
    assert visitor.texts == (f"Age={age}",)
    assert list(answers) == []


def test_uploading_is_off_with_the_reason_where_the_generator_has_no_encoder(resources, page, monkeypatch):
    assert find(page, "edit-upload").interactive
    monkeypatch.setattr(type(resources.generator), "encode", Generator.encode)
    without = build(resources)
    assert not find(without, "edit-upload").interactive
    assert any("no encoder" in str(getattr(block, "value", "")) for block in without.blocks.values())


def test_the_prior_draws_faces_where_the_generator_cannot(resources, monkeypatch):
    by_generator = resources.worker.do(sources.drawn, resources, 1)
    monkeypatch.setattr(type(resources.generator), "sample_latents", Generator.sample_latents)
    first, again, other = (resources.worker.do(sources.drawn, resources, seed) for seed in (1, 1, 2))
    assert first.name == "Face drawn by the prior with seed 1"
    assert (first.picture == again.picture).all()
    assert (first.picture != other.picture).any()
    assert (first.picture != by_generator.picture).any()


@pytest.mark.parametrize("name", ["take_back", "edit"])
def test_a_page_whose_session_has_ended_says_so(name, page):
    handler = next(fn for fn in page.fns.values() if fn.fn.__name__ == name)
    inputs = [block.value for block in handler.inputs]
    output = asyncio.run(page.process_api(handler, inputs, state=SessionState(page)))
    shown = dict(zip([block.elem_id for block in handler.outputs], output["data"], strict=True))
    assert "load it again" in shown["edit-notice"]
