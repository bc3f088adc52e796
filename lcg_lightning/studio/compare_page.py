"""The Compare page: the leaderboard of a folder of records."""

import gradio as gr

from lcg_lightning.studio.compare import board
from lcg_lightning.studio.resources import Resources


def compare_page(resources: Resources) -> None:
    """Draws the page into the current Gradio block."""
    shown = gr.HTML(lambda: board(resources.records), elem_id="compare-board")
    again = gr.Button("Reload", size="sm", elem_id="compare-again")
    again.click(lambda: board(resources.records), None, [shown], api_visibility="private", show_progress="hidden")
