"""The Compose page: samples of a condition that a visitor types."""

import time
from collections.abc import Iterator
from typing import Any

import gradio as gr

from lcg_lightning.methods.base import strength
from lcg_lightning.studio import words
from lcg_lightning.studio.compose import BATCH, MOST_SAMPLES, Sampling, composer, examples, titles
from lcg_lightning.studio.composed import finished, names, progress, verdict
from lcg_lightning.studio.copying import copying
from lcg_lightning.studio.messages import reporting
from lcg_lightning.studio.resources import Resources
from lcg_lightning.studio.words import Asked

SHOW_SAMPLES = """() => {
    const results = document.querySelector("#compose-results");
    if (results.getBoundingClientRect().top > innerHeight) results.scrollIntoView({behavior: "smooth"});
}"""
"""Brings the samples into sight on a phone, where they stand below all settings."""


def compose_page(resources: Resources) -> None:
    """Draws the page into the current Gradio block."""
    known, methods = examples(resources.schema), titles(resources)
    scale_of = {name: strength(resources.methods[name], edits=False) for name in methods}
    notice = gr.HTML(elem_id="compose-notice")
    with gr.Row(elem_id="compose"):
        with gr.Column(elem_id="compose-asking"):
            text = gr.Textbox(
                known[0], label="Condition (Shift+Enter samples)", lines=2, max_lines=6, elem_id="compose-text"
            )
            reading = gr.HTML(
                verdict(known[0], resources.schema), html_template='<div role="status">${value}</div>',
                elem_id="compose-verdict",
            )  # fmt: skip
            go = gr.Button("Sample", variant="primary", elem_id="compose-go")
            gr.HTML(names(resources.schema))
            gr.Examples([[each] for each in known], [text], label="Examples", elem_id="compose-examples")
            method = gr.Dropdown(methods, label="Method", elem_id="compose-method")
            scale = gr.Slider(
                0, 10, scale_of[methods[0]] or 1, step=0.1, label="Strength (guidance scale)", buttons=[],
                visible=scale_of[methods[0]] is not None, elem_id="compose-scale",
            )  # fmt: skip
            count = gr.Slider(1, MOST_SAMPLES, 16, step=1, label="Samples", buttons=[], elem_id="compose-count")
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="compose-seed")
        with gr.Column(elem_id="compose-results"):
            grid = gr.HTML('<p class="hint">Samples appear here.</p>', elem_id="compose-grid")
            copied, command, lines = copying("compose")

    def sample(
        condition: str, name: str, strength: float | None, n: float | None, number: float | None
    ) -> Iterator[dict[Any, Any]]:
        begin = time.perf_counter()
        asked = Asked(condition, int(n or 0), int(number or 0), BATCH)
        sampling = Sampling(resources, composer(resources, name, strength), asked)
        yield {grid: progress(sampling)}
        for _ in sampling.batches():
            yield {grid: progress(sampling)}
        yield {
            grid: finished(sampling, name, time.perf_counter() - begin),
            command: words.sample_command(resources, sampling.method, sampling.asked),
            copied: gr.update(visible=True),
            lines: words.sample_python(resources, sampling.method, sampling.asked),
        }

    def settings(name: str) -> dict[Any, Any]:
        return {scale: gr.update(value=scale_of[name] or 1, visible=scale_of[name] is not None)}

    text.change(
        lambda typed: verdict(typed, resources.schema), [text], [reading], api_visibility="private", queue=False,
        trigger_mode="always_last", show_progress="hidden",
    )  # fmt: skip
    method.input(
        reporting(settings, notice), [method], [scale, notice], api_visibility="private", show_progress="hidden"
    )
    gr.on([go.click, text.submit], None, js=SHOW_SAMPLES, api_visibility="private")
    gr.on(
        [go.click, text.submit], reporting(sample, notice), [text, method, scale, count, seed],
        [grid, copied, command, lines, notice], api_visibility="private", trigger_mode="once", show_progress="minimal",
        show_progress_on=grid, concurrency_limit=4,
        preprocess=False,  # Gradio would answer a number out of range with an error of its own
    )  # fmt: skip
