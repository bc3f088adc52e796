"""HTML of the Edit page's pictures."""

from collections.abc import Mapping
from html import escape

from lcg_lightning.studio.pictures import download_picture, figure, thumbnail
from lcg_lightning.studio.session import Result
from lcg_lightning.studio.sources import Source
from lcg_lightning.studio.words import UPLOAD

HINT = '<p class="hint">Move a slider or a switch: each move is one edit.</p>'
"""In place of edits where there are none."""


def side_by_side(source: Source, result: Result | None, method: str) -> str:
    """The uploaded picture if there is one, the source, and the result."""
    figures, before = [], ""
    if source.uploaded is not None:
        figures.append(figure(source.uploaded, "Your picture", "The picture that you uploaded", source.remark))
        before = download_picture(UPLOAD, source.uploaded, f"Download your picture as it was encoded ({UPLOAD})")
    name = "Its reconstruction" if source.uploaded is not None else source.name
    figures.append(figure(source.picture, name, f"{source.name}, before any edit"))
    if result is not None:
        asked = ", then ".join(result.edits)
        figures.append(figure(result.last.picture, method, f"The face after {asked}, by {method}"))
    return _row(figures) + before


def strip(result: Result) -> str:
    """The source and the face after each edit."""
    source = result.source
    figures = [figure(thumbnail(source.picture), "source", f"{source.name}, before any edit")]
    for k, (text, state) in enumerate(zip(result.edits, result.states, strict=True), 1):
        figures.append(figure(thumbnail(state.picture), text, f"The face after edit {k}: {text}"))
    return "<h2>Edits so far</h2>" + _row(figures, "strip")


def compared(found: Mapping[str, Result | str]) -> str:
    """What every method made of the same edits, or why it made nothing."""
    figures = []
    for name, each in found.items():
        if isinstance(each, str):
            figures.append(
                f'<figure><p class="hint">{escape(each)}</p><figcaption>{escape(name)}</figcaption></figure>'
            )
        else:
            same = "" if each.identity is None else f"identity {each.identity:.3f}"
            figures.append(figure(thumbnail(each.last.picture), name, f"The face after the edits, by {name}", same))
    return "<h2>Every method, with its own settings</h2>" + _row(figures)


def _row(figures: list[str], kind: str = "") -> str:
    return f'<div class="pictures {kind}">{"".join(figures)}</div>'
