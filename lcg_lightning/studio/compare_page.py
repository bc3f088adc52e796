"""The Compare page: the leaderboard of a folder of records."""

import gradio as gr

from lcg_lightning.studio.compare import board
from lcg_lightning.studio.workshop import Workshop


def compare_page(workshop: Workshop) -> None:
    """Draws the page into the current Gradio block."""
    shown = gr.HTML(lambda: board(workshop.records), elem_id="compare-board")
    again = gr.Button("Look again", size="sm", elem_id="compare-again")
    again.click(lambda: board(workshop.records), None, [shown], api_visibility="private", show_progress="hidden")
