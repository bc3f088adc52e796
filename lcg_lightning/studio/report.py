"""What a visitor reads about a result: whether what was asked is there, and what else changed."""

from html import escape

import torch
from torch import Tensor

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.studio.session import Result

SHOWN = 8
"""Rows of a table."""
LEAST = 0.005
"""Smallest change, as a share of the range, that is shown."""


def readings(outputs: Tensor, schema: AttributeSchema) -> Tensor:
    """Readings (A,) on the unit scale of a classifier's outputs (1, K): probabilities of binary attributes."""
    unit = schema.unit(schema.predict(outputs))[0]
    logits = [outputs[0, schema.head(a.name)][0] for a in schema]
    columns = zip(schema, unit, logits, strict=True)
    return torch.stack([logit.sigmoid() if a.kind == "binary" else label for a, label, logit in columns])


def said(attribute: Attribute, reading: float) -> str:
    """A reading in words: a probability, a class, or a number in the attribute's unit."""
    if attribute.kind == "binary":
        return f"{100 * reading:.0f}\u00a0%"
    if attribute.kind == "categorical":
        return attribute.classes[int(reading)]
    return f"{attribute.low + reading * (attribute.high - attribute.low):.1f}"


def moved(attribute: Attribute, before: float, after: float) -> float:
    """How far a reading moved, as a share of its range."""
    return float(before != after) if attribute.kind == "categorical" else abs(after - before)


def tables(result: Result, schema: AttributeSchema) -> str:
    """HTML of two tables: what was asked for, and what changed that nobody asked for, largest first."""
    targets = {edit.name: edit.value for edit in result.changes}
    before, after = readings(result.source.outputs, schema).tolist(), readings(result.last.outputs, schema).tolist()
    asked, other = [], []
    for attribute, b, a in zip(schema, before, after, strict=True):
        cells = [shown(attribute.name), said(attribute, b), said(attribute, a)]
        if attribute.name in targets:
            value = targets[attribute.name]
            wanted = ("yes" if value else "no") if isinstance(value, bool) else f"{value}".removesuffix(".0")
            asked.append([*cells, wanted])
        elif (change := moved(attribute, b, a)) >= LEAST:
            other.append((change, [*cells, f"{100 * change:.0f}\u00a0%"]))
    other.sort(key=lambda row: -row[0])
    identity = "" if result.identity is None else f"Identity <b>{result.identity:.3f}</b>, cosine to the source. "
    return (
        f"<p>{identity}Made in {result.seconds:.2f} s.</p>"
        + _table("What was asked for", ["Attribute", "Source", "Now", "Asked"], asked)
        + (
            _table(
                "What changed that nobody asked for",
                ["Attribute", "Source", "Now", "Change of range"],
                [cells for _, cells in other[:SHOWN]],
            )
            if other
            else "<p>Nothing else changed by as much as half a percent of its range.</p>"
        )
    )


def shown(name: str) -> str:
    """An attribute's name on the page."""
    return name.replace("_", " ")


def _table(caption: str, heads: list[str], rows: list[list[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
        for name, *cells in rows
    )
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
