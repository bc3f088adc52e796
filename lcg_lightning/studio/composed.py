"""HTML of the Compose page: how a condition is read or what is wrong with it, and its samples."""

import re
from html import escape

import torch

from lcg_lightning.attributes import AttributeSchema, quoted
from lcg_lightning.conditions import to_text
from lcg_lightning.conditions.language import TOKEN, ConditionError
from lcg_lightning.errors import UserError
from lcg_lightning.studio.compose import Sample, Sampling, check
from lcg_lightning.studio.pictures import download, download_latents, figure

_AROUND = 40
"""Characters shown on each side of a mistake."""


def names(schema: AttributeSchema) -> str:
    """The attributes that a condition may name, and how."""
    words = []
    for attribute in schema:
        name, classes = quoted(attribute.name), "|".join(map(quoted, attribute.classes))
        if attribute.kind == "continuous":
            words.append(f"{name}={attribute.low:g} to {attribute.high:g}")
        else:
            words.append(f"{name}={classes}" if classes else name)
    return (
        '<p class="hint">Join attributes with <code>&amp;</code> (and), <code>|</code> (or), <code>~</code> (not) and '
        "parentheses; <code>2*</code> before a term weighs it twice. "
        f"Attributes: {', '.join(f'<code>{escape(word)}</code>' for word in words)}.</p>"
    )


def verdict(text: str, schema: AttributeSchema) -> str:
    """How a condition is read, or what is wrong with it and where."""
    try:
        return f'<p class="verdict">Reads as <code>{escape(to_text(check(text, schema), schema))}</code></p>'
    except ConditionError as error:
        said, place = error.complaint[0].upper() + error.complaint[1:], ""
        if error.column is not None:
            said, place = f"Column {error.column}: {error.complaint}", _pointed(text, error.column)
        return f'<p class="verdict wrong">{escape(said)}.</p>{place}'
    except UserError as error:
        return f'<p class="verdict wrong">{escape(str(error))}</p>'


def _pointed(text: str, column: int) -> str:
    """The text around a mistake, which is marked."""
    at = column - 1
    word = re.match(TOKEN, text[at:])
    end = at + (len(word[0]) if word else 1)
    before, after = text[:at][-_AROUND:], text[end:][:_AROUND]
    parts = ["…" * (len(before) < at), before], text[at:end] or " ", [after, "…" * (end + len(after) < len(text))]
    left, marked, right = (re.sub(r"\s", " ", "".join(part)) for part in parts)
    return f'<pre class="pointed">{escape(left)}<mark>{escape(marked)}</mark>{escape(right)}</pre>'


def progress(sampling: Sampling) -> str:
    """The samples so far, and how many are to come."""
    done, every = len(sampling.samples), sampling.asked.n
    bar = f'<progress max="{every}" value="{done}" aria-label="Sampling"></progress> {done} of {every} samples'
    return f'<p class="hint">{bar}</p>{_pictures(sampling.samples)}'


def finished(sampling: Sampling, method: str, seconds: float) -> str:
    """All samples, with what their figures mean and links that download them."""
    asked, reader = sampling.asked, sampling.reader
    met = [sample.chance for sample in sampling.samples if sample.chance is not None]
    mean = f", mean p {sum(met) / len(met):.2f}" if met else ""
    meaning = (
        f" p: probability of the condition, numbers within a tenth of their range, read by {reader}." if met else ""
    )
    about = (
        f"<p><strong><code>{escape(asked.condition)}</code></strong>: {asked.n} samples by {escape(method)}{mean}. "
        f'<span class="hint">{seconds:.1f} s.{escape(meaning)}</span></p>'
    )
    return about + _pictures(sampling.samples) + _downloads(sampling)


def _pictures(samples: list[Sample]) -> str:
    figures = []
    for i, sample in enumerate(samples):
        chance = "" if sample.chance is None else f"p {sample.chance:.2f}"
        alt = ", ".join(filter(None, [f"Sample {i}", chance and f"probability {chance[2:]}", sample.read]))
        figures.append(figure(sample.picture, chance or f"{i}", alt, sample.read))
    return f'<div class="pictures samples">{"".join(figures)}</div>'


def _downloads(sampling: Sampling) -> str:
    latents = torch.stack([sample.latents for sample in sampling.samples])
    picture = download("samples.png", sampling.picture(), "image/png", "Download the picture (PNG)")
    numbers = download_latents(
        "samples.safetensors", latents, "Download the latents (safetensors)", condition=sampling.asked.condition
    )
    return f"<p>{picture}{numbers}</p>"
