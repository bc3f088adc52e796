"""The Edit page: a face, its sliders and switches, and what each method makes of them."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from lcg_lightning.attributes import Attribute
from lcg_lightning.errors import UserError
from lcg_lightning.methods.base import Method
from lcg_lightning.studio import controls, sources
from lcg_lightning.studio.drawing import compared, side_by_side, strip
from lcg_lightning.studio.knobs import knobs
from lcg_lightning.studio.pictures import downloads
from lcg_lightning.studio.report import shown, tables
from lcg_lightning.studio.session import Result, Session
from lcg_lightning.studio.telling import told
from lcg_lightning.studio.uploads import KEPT_SECONDS, MOST_BYTES
from lcg_lightning.studio.workshop import Workshop

HOUR = 3600


def edit_page(workshop: Workshop) -> None:
    """Draws the page into the current Gradio block."""
    do, count, first = workshop.bench.do, len(workshop.faces.latents), knobs(workshop.main)
    session = gr.State(None, time_to_live=HOUR)
    turn = gr.Number(0, visible="hidden")
    notice = gr.HTML(elem_id="edit-notice")
    with gr.Row(elem_id="edit"):
        with gr.Column(elem_id="edit-faces"):
            faces = gr.HTML(elem_id="edit-result")
            with gr.Row(elem_classes="tight"):
                undo = gr.Button("Undo", size="sm", elem_id="edit-undo")
                reset = gr.Button("Start over", size="sm", elem_id="edit-reset")
        with gr.Column(elem_id="edit-controls"):
            with gr.Group():
                with gr.Row(elem_classes="tight"):
                    previous = gr.Button("Previous", size="sm", elem_id="edit-previous")
                    following = gr.Button("Next", size="sm", elem_id="edit-next")
                    chance = gr.Button("Random row", size="sm", elem_id="edit-random")
                    draw = gr.Button("Draw a face", size="sm", elem_id="edit-draw")
                number = gr.Number(
                    0, label=f"Face of the test split, 0 to {count - 1}", precision=0, elem_id="edit-number"
                )
                upload = _upload_button(workshop)
            moving = [_control(attribute) for attribute in workshop.schema]
            with gr.Accordion("Method", open=False):
                method = gr.Dropdown(list(workshop.methods), label="Method", elem_id="edit-method")
                scale = gr.Slider(
                    0, first.strongest, first.scale, step=first.step, label="Strength (guidance scale)",
                    elem_id="edit-scale", visible=first.scale is not None,
                )  # fmt: skip
                tau = gr.Slider(
                    0.05, 1.5, first.tau or 0.25, step=0.05, label="How far the face may move (tau)",
                    elem_id="edit-tau", visible=first.tau is not None,
                )  # fmt: skip
                keep = gr.Checkbox(
                    first.keep or False, label="Hold what nobody asked for", elem_id="edit-keep",
                    visible=first.keep is not None,
                )  # fmt: skip
                compare = gr.Checkbox(False, label="Show all methods side by side", elem_id="edit-compare")
        with gr.Column(elem_id="edit-rest"):
            steps = gr.HTML(elem_id="edit-strip")
            words = gr.HTML(elem_id="edit-tables")
            others = gr.HTML(elem_id="edit-others")

    setting = [method, scale, tau, keep, compare]
    drawn = [faces, steps, words, others, notice]
    placed = [session, turn, number, *moving]

    def draw_result(visitor: Session, name: str, strength: float, tau: float, keep: bool, every: bool) -> Iterator[Any]:
        """The result by the chosen method, then, on request, by all others."""
        chosen = workshop.methods[name]
        result = do(visitor.result, chosen, knobs(chosen).changes(strength, tau, keep))
        yield {
            faces: side_by_side(visitor.source, result, name),
            steps: strip(visitor.source, result),
            words: "" if result is None else tables(visitor.source, result, visitor.edits, workshop.schema)
            + downloads(result.last.picture, result.last.latents, "edit", conditions="; ".join(result.edits)),
            **({} if every else {others: ""}),
        }  # fmt: skip
        if every and result is not None:
            found = {}
            for title, each in workshop.methods.items():
                found[title] = result if title == name else do(_attempt, visitor, each)
                yield {others: compared(found)}

    def place(visitor: Session) -> dict[Any, Any]:
        """Sets the controls to where the visitor's edits stand."""
        where = visitor.source.origin
        at = {number: where.number} if isinstance(where, sources.Row) else {}
        values = dict(zip(moving, visitor.values(), strict=True))
        return {session: visitor, turn: visitor.turn, **at, **values}

    def begin(visitor: Session | None, source: Any, *given: Any) -> Iterator[Any]:
        """Starts with another face."""
        if visitor is None:
            visitor = Session(workshop, source)
        else:
            visitor.start(source)
        yield place(visitor)
        yield from draw_result(visitor, *given)

    def show_row(visitor: Session | None, at: float | None, *given: Any) -> Iterator[Any]:
        yield from begin(visitor, do(sources.row, workshop, int(at or 0)), *given)

    def step_row(by: int) -> Any:
        def show(visitor: Session | None, at: float | None, *given: Any) -> Iterator[Any]:
            yield from show_row(visitor, (int(at or 0) + by) % count, *given)

        return show

    def show_chance(visitor: Session | None, at: float | None, *given: Any) -> Iterator[Any]:
        yield from show_row(visitor, random.randrange(count), *given)

    def show_drawn(visitor: Session | None, at: float | None, *given: Any) -> Iterator[Any]:
        yield from begin(visitor, do(sources.drawn, workshop, random.randrange(10**6)), *given)

    def show_upload(visitor: Session | None, file: str | None, *given: Any) -> Iterator[Any]:
        if file is not None:
            yield from begin(visitor, do(sources.uploaded, workshop, Path(file)), *given)

    def edit(visitor: Session | None, now: float, *given: Any) -> Iterator[Any]:
        """Takes over the controls, unless they are those of an earlier face."""
        if visitor is None or now != visitor.turn:
            return
        options, values = given[: len(setting)], given[len(setting) :]
        visitor.set(values)
        yield from draw_result(visitor, *options)

    def take_back(visitor: Session | None, *given: Any) -> Iterator[Any]:
        if visitor is not None:
            visitor.undo()
            yield place(visitor)
            yield from draw_result(visitor, *given)

    def start_over(visitor: Session | None, *given: Any) -> Iterator[Any]:
        if visitor is not None:
            visitor.reset()
            yield place(visitor)
            yield from draw_result(visitor, *given)

    def settings(name: str) -> dict[Any, Any]:
        """The settings that a method has, at its own values."""
        own = knobs(workshop.methods[name])
        return {
            scale: gr.update(maximum=own.strongest, step=own.step, value=own.scale or 1, visible=own.scale is not None),
            tau: gr.update(value=own.tau or 0.25, visible=own.tau is not None),
            keep: gr.update(value=own.keep or False, visible=own.keep is not None),
        }

    def on(triggers: Any, handler: Any, inputs: list[Any], outputs: list[Any], mode: Any = "always_last") -> Any:
        return gr.on(
            triggers, told(handler, notice), inputs, outputs, api_visibility="private", trigger_mode=mode,
            show_progress="minimal", show_progress_on=faces, concurrency_limit=4,
        )  # fmt: skip

    everything = [*placed, *drawn]
    for trigger, handler in [
        (previous.click, step_row(-1)),
        (following.click, step_row(1)),
        (chance.click, show_chance),
        (draw.click, show_drawn),
        ([number.submit, number.blur], show_row),
    ]:
        on(trigger, handler, [session, number, *setting], everything)
    on(upload.upload, show_upload, [session, upload, *setting], everything, "once")
    on(undo.click, take_back, [session, *setting], everything)
    on(reset.click, start_over, [session, *setting], everything)
    edits = [session, turn, *setting, *moving]
    on([each.input for each in [*moving, scale, tau, keep, compare]], edit, edits, drawn)
    on(method.input, settings, [method], [scale, tau, keep, notice]).then(
        told(edit, notice), edits, drawn, api_visibility="private", show_progress_on=faces, show_progress="minimal"
    )
    loaded = gr.context.Context.root_block
    assert loaded is not None
    on(loaded.load, show_row, [session, number, *setting], everything)


def _attempt(visitor: Session, method: Method) -> Result | str:
    """A method's result with its own settings, or why it has none."""
    try:
        result = visitor.result(method)
    except UserError as error:
        return str(error)
    assert result is not None
    return result


def _upload_button(workshop: Workshop) -> gr.UploadButton:
    """A button that uploads a picture; off, with the reason beside it, where the generator has no encoder."""
    able = workshop.generator.can("encode")
    size = workshop.generator.image_size
    button = gr.UploadButton(
        "Upload a picture", file_types=["image"], size="sm", interactive=able, elem_id="edit-upload"
    )
    if able:
        text = (
            f"PNG, JPEG, WEBP or BMP, at most {MOST_BYTES >> 20} MB; cropped to a square, scaled to {size} x {size}. "
            f"It is not kept: the file is removed once it is read, at the latest after {2 * KEPT_SECONDS} seconds."
        )
    else:
        text = "Uploading is off: this generator has no encoder, which would turn a picture into a latent."
    gr.HTML(f'<p class="hint">{text}</p>')
    return button


def _control(attribute: Attribute) -> Any:
    """The slider, switch or list of an attribute."""
    name, mark = shown(attribute.name), f"edit-{attribute.name}"
    if attribute.kind == "binary":
        return gr.Checkbox(False, label=name, elem_id=mark)
    if attribute.kind == "categorical":
        return gr.Dropdown(list(attribute.classes), label=name, elem_id=mark)
    size = controls.step(attribute.low, attribute.high)
    return gr.Slider(attribute.low, attribute.high, attribute.low, step=size, label=name, elem_id=mark)
