"""The part of a page that shows a result in words, to copy."""

import gradio as gr

HINT = (
    '<p class="hint">Paste the command into a shell, or the lines into Python, where the studio was started: '
    "the same pictures, bit for bit. The output folder must be new.</p>"
)


def copying(mark: str) -> tuple[gr.Accordion, gr.Code, gr.Code]:
    """Draws the command and the lines of Python, which are hidden until there is a result.

    Args:
        mark: begins the elements' ids.
    """
    with gr.Accordion("Copy as command", open=False, visible=False, elem_id=f"{mark}-copy") as whole:
        command = gr.Code(label="Command", lines=1, interactive=False, elem_id=f"{mark}-command")
        lines = gr.Code(label="Python", lines=1, interactive=False, elem_id=f"{mark}-python")
        gr.HTML(HINT)
    return whole, command, lines
