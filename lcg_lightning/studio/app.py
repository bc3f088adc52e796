"""The studio's page and its server."""

import os
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported

import gradio as gr

from lcg_lightning.studio.address import find_port, in_url
from lcg_lightning.studio.compare import route
from lcg_lightning.studio.compare_page import compare_page
from lcg_lightning.studio.compose_page import compose_page
from lcg_lightning.studio.edit_page import edit_page
from lcg_lightning.studio.resources import Resources
from lcg_lightning.studio.uploads import MOST_BYTES, keep_swept

PAGES: Mapping[str, Callable[[Resources], None]] = {"Edit": edit_page, "Compose": compose_page, "Compare": compare_page}
"""What draws each tab."""
VISITORS = 64
"""Visitors whose sessions are kept, the latest ones."""


def build(resources: Resources) -> gr.Blocks:
    """The page with all tabs."""
    with gr.Blocks(title="lcg studio", analytics_enabled=False) as page:
        gr.HTML("<h1>lcg studio</h1>")
        with gr.Tabs():
            for name, draw in PAGES.items():
                with gr.Tab(name):
                    draw(resources)
    return page


def serve(resources: Resources, host: str, port: int, open_browser: bool) -> None:
    """Serves the page until it is interrupted.

    Raises:
        UserError: the port is in use, or the host is not of this machine.
    """
    port = find_port(host, port)
    with tempfile.TemporaryDirectory(prefix="lcg-studio-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        keep_swept(Path(folder))
        page = build(resources)
        page.queue(max_size=4 * VISITORS)
        page.launch(
            server_name=in_url(host), server_port=port, share=False, inbrowser=open_browser, quiet=True,
            prevent_thread_lock=True, footer_links=[], run_history=False, enable_monitoring=False, ssr_mode=False,
            max_file_size=MOST_BYTES, state_session_capacity=VISITORS,
            theme=theme(),
            css_paths=Path(__file__).with_name("page.css"),
            app_kwargs={
                "routes": [route(resources.records)], "max_body_size": MOST_BYTES + 2**20,
                "docs_url": None, "redoc_url": None, "openapi_url": None,
            },
        )  # fmt: skip
        print(f"The studio is at {page.local_url} ; Ctrl-C ends it.", flush=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does, and leaves no file behind
        try:
            while True:
                time.sleep(3600)
        finally:
            page.close(verbose=False)


def theme() -> gr.themes.Base:
    """Gradio's own look, with fonts that the machine has and colours that can be read."""
    plain = gr.themes.Default(
        primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    return plain.set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        color_accent="*primary_700",
        slider_color="*primary_600",
        slider_color_dark="*primary_400",
        checkbox_background_color_selected="*primary_600",
        checkbox_border_color="*neutral_500",
        checkbox_border_color_dark="*neutral_400",
    )
