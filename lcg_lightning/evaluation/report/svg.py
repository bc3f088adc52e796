"""Figures as inline SVG, in the colours of the page that holds them."""

import html
import io
import re
from typing import TYPE_CHECKING

from lcg_lightning.evaluation.plots import FAINT, INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def inline(figure: "Figure", name: str) -> str:
    """A figure as an ``svg`` element for HTML: no reference outside of itself, ids that begin with ``name``.

    Ink becomes the page's text color and the grid its ``--line``, so that the figure is readable in a dark page. Words
    stay text, and coordinates have two decimals, so that a page of many figures stays small. A screen reader says what
    the axes say.
    """
    import matplotlib as mpl

    figure.set_facecolor("none")
    for axes in figure.axes:
        axes.set_facecolor("none")
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans"]}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'\s(xmlns(:xlink)?|version)="[^"]*"', "", text)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S).replace("xlink:href", "href")
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    words = "; ".join(f"{axes.get_ylabel()} against {axes.get_xlabel()}" for axes in figure.axes)
    told = f'role="img" aria-label="{html.escape(words)}"'
    text = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', lambda box: f"<svg {box[1]} {told}>", text, count=1)
    text = re.sub(r"<[^>]*>", _short, re.sub(r">\s+<", "><", text))
    text = text.replace(INK.lower(), "currentColor").replace("#999999", "currentColor")
    return text.replace(FAINT.lower(), "var(--line)").strip()


def _short(tag: "re.Match[str]") -> str:
    """A tag on one line, with two decimals."""
    words = re.sub(r"\s+", " ", tag[0])
    return re.sub(r"-?\d+\.\d{3,}", lambda number: f"{round(float(number[0]), 2):g}", words)
