"""HTML of the Edit page's pictures."""

from collections.abc import Mapping

from lcg_lightning.studio.pictures import figure
from lcg_lightning.studio.session import Result
from lcg_lightning.studio.sources import Source


def side_by_side(source: Source, result: Result | None, method: str) -> str:
    """The uploaded picture if there is one, the source, and the result."""
    figures = []
    if source.uploaded is not None:
        figures.append(figure(source.uploaded, "Your picture", "The picture that you uploaded", source.remark))
    name = "Its reconstruction" if source.uploaded is not None else source.name
    figures.append(figure(source.picture, name, f"{source.name}, before any edit"))
    if result is not None:
        asked = ", then ".join(result.edits)
        figures.append(figure(result.last.picture, method, f"The face after {asked}, by {method}"))
    return _row(figures)


def strip(source: Source, result: Result | None) -> str:
    """The source and the face after each edit."""
    if result is None:
        return '<p class="hint">Move a slider or a switch: each move is one edit.</p>'
    figures = [figure(source.picture, "source", f"{source.name}, before any edit")]
    for k, (text, state) in enumerate(zip(result.edits, result.states, strict=True), 1):
        figures.append(figure(state.picture, text, f"The face after edit {k}: {text}"))
    return "<h3>Edits so far</h3>" + _row(figures, "strip")


def compared(found: Mapping[str, Result | str]) -> str:
    """What every method made of the same edits, or why it made nothing."""
    figures = []
    for name, each in found.items():
        if isinstance(each, str):
            figures.append(f'<figure><p class="hint">{each}</p><figcaption>{name}</figcaption></figure>')
        else:
            same = "" if each.identity is None else f"identity {each.identity:.3f}"
            figures.append(figure(each.last.picture, name, f"The face after the edits, by {name}", same))
    return "<h3>Every method, with its own settings</h3>" + _row(figures)


def _row(figures: list[str], kind: str = "") -> str:
    return f'<div class="pictures {kind}">{"".join(figures)}</div>'
