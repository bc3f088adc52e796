"""The Edit page: a face, its sliders and switches, and what each method makes of them."""

import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.errors import UserError
from lcg_lightning.methods.base import Method
from lcg_lightning.studio import controls, sources
from lcg_lightning.studio.copying import copying
from lcg_lightning.studio.drawing import HINT, compared, side_by_side, strip
from lcg_lightning.studio.knobs import knobs
from lcg_lightning.studio.messages import reporting
from lcg_lightning.studio.methods import can_edit
from lcg_lightning.studio.pictures import download_latents, download_picture
from lcg_lightning.studio.report import shown, tables
from lcg_lightning.studio.resources import Resources
from lcg_lightning.studio.session import Result, Session
from lcg_lightning.studio.uploads import KEPT_SECONDS, MOST_BYTES
from lcg_lightning.studio.words import edit_command, edit_python

HOUR = 3600
GONE = "This page was left alone for too long; load it again."


def edit_page(resources: Resources) -> None:
    """Draws the page into the current Gradio block."""
    do, count = resources.worker.do, len(resources.faces.latents)
    row = partial(sources.row, resources)
    methods = {name: method for name, method in resources.methods.items() if can_edit(method)}
    first = knobs(next(iter(methods.values())))
    session = gr.State(None, time_to_live=HOUR)
    turn = gr.Number(0, visible="hidden")
    notice = gr.HTML(elem_id="edit-notice")
    with gr.Row(elem_id="edit"):
        with gr.Column(elem_id="edit-faces"):
            faces = gr.HTML(elem_id="edit-result")
            with gr.Row(elem_classes="buttons"):
                undo = gr.Button("Undo", size="sm", elem_id="edit-undo")
                reset = gr.Button("Start over", size="sm", elem_id="edit-reset")
        with gr.Column(elem_id="edit-controls"):
            with gr.Row():
                number = gr.Number(
                    0, label=f"Face of the test split: 0 to {count - 1}, then Enter", precision=0,
                    elem_id="edit-number",
                )  # fmt: skip
            with gr.Row(elem_classes="buttons"):
                previous = gr.Button("Previous", size="sm", elem_id="edit-previous")
                following = gr.Button("Next", size="sm", elem_id="edit-next")
                chance = gr.Button("Random", size="sm", elem_id="edit-random")
                draw = gr.Button("Draw a new face", size="sm", elem_id="edit-draw")
                upload = _upload_button(resources)
            gr.HTML(f'<p class="hint">{_upload_hint(resources)}</p>')
            moving = _controls(resources.schema)
            method = gr.Dropdown(list(methods), label="Method", elem_id="edit-method")
            scale = gr.Slider(
                0, first.strongest, first.scale, step=first.step, label="Strength (guidance scale)",
                elem_id="edit-scale", visible=first.scale is not None, buttons=[],
            )  # fmt: skip
            tau = gr.Slider(
                0.05, 1.5, first.tau or 0.25, step=0.05, label="How far the face may move (tau)",
                elem_id="edit-tau", visible=first.tau is not None, buttons=[],
            )  # fmt: skip
            keep = gr.Checkbox(
                first.keep or False, label="Hold what nobody asks for", elem_id="edit-keep",
                visible=first.keep is not None,
            )  # fmt: skip
            compare = gr.Checkbox(False, label="Show every method side by side", elem_id="edit-compare")
        with gr.Column(elem_id="edit-rest"):
            steps = gr.HTML(elem_id="edit-strip")
            others = gr.HTML(elem_id="edit-others")
            said = gr.HTML(elem_id="edit-tables")
            copied, command, lines = copying("edit")

    setting = [method, scale, tau, keep, compare]
    drawn = [session, faces, steps, said, others, copied, command, lines, notice]
    everything = [*drawn, turn, number, *moving]

    def answer(visitor: Session, name: str, strength: float, tau: float, keep: bool, every: bool) -> Iterator[Any]:
        """The result by the chosen method, then, on request, by all others."""
        chosen = methods[name]
        result = do(visitor.result, chosen, knobs(chosen).changes(strength, tau, keep))
        shown = side_by_side(result.source if result else visitor.source, result, name)
        yield {session: visitor, faces: shown, **_drawn(result), **({} if every and result else {others: ""})}
        if not (every and result):
            return
        found: dict[str, Result | str] = {}
        for title, each in methods.items():
            tried = do(_attempt, visitor, result, each)
            if tried is None:
                return
            found[title] = tried
            yield {others: compared(found)}

    def _drawn(result: Result | None) -> dict[Any, Any]:
        if result is None:
            return {steps: HINT, said: "", copied: gr.update(visible=False)}
        last, about = result.last, "; ".join(result.edits)
        files = download_picture("edit.png", last.picture, "Download the picture (PNG)") + download_latents(
            "edit.safetensors", last.latents, "Download the latents (safetensors)", conditions=about
        )
        asked = resources, result.method, result.edits, result.source.origin
        return {
            steps: strip(result),
            said: f"{tables(result, resources.schema)}<p>{files}</p>",
            copied: gr.update(visible=True),
            command: edit_command(*asked),
            lines: edit_python(*asked),
        }

    def face(visitor: Session, *given: Any) -> Iterator[Any]:
        """Sets the controls to where a visitor's edits stand, and answers."""
        origin = visitor.source.origin
        at = origin.number if isinstance(origin, sources.Row) else None
        yield {session: visitor, turn: visitor.turn, number: at, **dict(zip(moving, visitor.values(), strict=True))}
        yield from answer(visitor, *given)

    def begin(find: Callable[[Any], sources.Source]) -> Callable[..., Iterator[Any]]:
        """A handler that starts with the face that ``find`` gives for the event's second input."""

        def show(visitor: Session | None, where: Any, *given: Any) -> Iterator[Any]:
            source = do(find, where)
            if visitor is None:
                visitor = Session(resources, source)
            else:
                do(visitor.start, source)
            yield from face(visitor, *given)

        return show

    def go(visitor: Session | None, where: float | None, *given: Any) -> Iterator[Any]:
        """Goes to the number that was typed, unless it is there already."""
        here = None if visitor is None else visitor.source.origin
        if where is not None and (not isinstance(here, sources.Row) or here.number != where):
            yield from begin(row)(visitor, where, *given)

    def edit(visitor: Session | None, now: float, *given: Any) -> Iterator[Any]:
        """Takes over the controls, unless they are those of an earlier face."""
        if visitor is None:
            raise UserError(GONE)
        if now == visitor.turn:
            do(visitor.set, given[len(setting) :])
            yield from answer(visitor, *given[: len(setting)])

    def back(change: Callable[[Session], None]) -> Callable[..., Iterator[Any]]:
        def take_back(visitor: Session | None, *given: Any) -> Iterator[Any]:
            if visitor is None:
                raise UserError(GONE)
            do(change, visitor)
            yield from face(visitor, *given)

        return take_back

    def settings(name: str) -> dict[Any, Any]:
        """The settings that a method has, at its own values."""
        own = knobs(methods[name])
        return {
            scale: gr.update(maximum=own.strongest, step=own.step, value=own.scale or 1, visible=own.scale is not None),
            tau: gr.update(value=own.tau or 0.25, visible=own.tau is not None),
            keep: gr.update(value=own.keep or False, visible=own.keep is not None),
        }

    looks: dict[str, Any] = {
        "preprocess": False,  # Gradio would answer a number that is half typed with an error
        "api_visibility": "private",
        "show_progress": "minimal",
        "show_progress_on": steps,
        "concurrency_limit": 4,
    }

    def on(
        triggers: Any, handler: Callable[..., Any], inputs: list[Any], outputs: list[Any] = everything, **more: Any
    ) -> Any:
        return gr.on(triggers, reporting(handler, notice), inputs, outputs, trigger_mode="always_last", **looks | more)

    at = [session, number, *setting]
    on(gr.context.Context.root_block.load, begin(row), at)
    on(number.submit, go, at)
    on(
        previous.click,
        begin(lambda visitor: row(visitor.previous_row() if visitor else 0)),
        [session, session, *setting],
    )
    on(following.click, begin(lambda visitor: row(visitor.next_row() if visitor else 0)), [session, session, *setting])
    on(chance.click, begin(lambda _: row(random.randrange(count))), at)
    on(draw.click, begin(lambda _: sources.drawn(resources, random.randrange(10**6))), at)
    uploaded = begin(lambda file: sources.uploaded(resources, Path(file)))
    on(upload.upload, uploaded, [session, upload, *setting], preprocess=True)  # a file's path is checked
    on(undo.click, back(Session.undo), [session, *setting])
    on(reset.click, back(Session.reset), [session, *setting])
    edits = [session, turn, *setting, *moving]
    on([each.input for each in [*moving, scale, tau, keep, compare]], edit, edits, drawn)
    changed = on(method.input, settings, [method], [scale, tau, keep, notice])
    changed.then(reporting(edit, notice), edits, drawn, **looks)


def _attempt(visitor: Session, chosen: Result, method: Method) -> Result | str | None:
    """What a method with its own settings makes of another result's edits, or why it cannot.

    None if the visitor has gone on to others meanwhile.
    """
    if visitor.source is not chosen.source or visitor.edits != chosen.changes:
        return None
    try:
        return visitor.result(method)
    except UserError as error:
        return str(error)


def _upload_button(resources: Resources) -> gr.UploadButton:
    able = resources.generator.can("encode")
    return gr.UploadButton("Upload a picture", size="sm", interactive=able, elem_id="edit-upload")


def _upload_hint(resources: Resources) -> str:
    """What happens to an uploaded picture, or why there can be none."""
    size = resources.generator.image_size
    if not resources.generator.can("encode"):
        return "Uploading is off: this generator has no encoder, which would turn a picture into a latent."
    return (
        f"Upload a PNG, JPEG, WEBP or BMP file of at most {MOST_BYTES >> 20} MB. It is cropped to a square and scaled "
        f"to {size} x {size}. It is not kept: the file is removed once it is read, at the latest after "
        f"{2 * KEPT_SECONDS} seconds."
    )


def _controls(schema: AttributeSchema) -> list[Any]:
    """The controls in the schema's order; switches are drawn together, above the others."""
    drawn: dict[str, Any] = {}
    with gr.Row(elem_classes="switches"):
        drawn |= {each.name: _control(each) for each in schema if each.kind == "binary"}
    drawn |= {each.name: _control(each) for each in schema if each.kind != "binary"}
    return [drawn[name] for name in schema.names]


def _control(attribute: Attribute) -> Any:
    """The slider, switch or list of an attribute."""
    name, mark = shown(attribute.name), f"edit-{attribute.name}"
    if attribute.kind == "binary":
        return gr.Checkbox(False, label=name, elem_id=mark)
    if attribute.kind == "categorical":
        return gr.Dropdown(list(attribute.classes), label=name, elem_id=mark)
    size = controls.step(attribute.low, attribute.high)
    return gr.Slider(attribute.low, attribute.high, attribute.low, step=size, label=name, buttons=[], elem_id=mark)
