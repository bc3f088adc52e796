"""Errors as visitors see them: a sentence on the page, never a traceback."""

import functools
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from html import escape
from typing import Any

from lcg_lightning.errors import UserError

UNKNOWN = "Something went wrong here; the terminal says what."


def sentence(error: Exception) -> str:
    """What a visitor is told of an error; one that is not the user's goes to the terminal with its traceback."""
    if isinstance(error, UserError):
        return str(error)
    traceback.print_exception(error, file=sys.stderr)
    return UNKNOWN


def notice(text: str) -> str:
    """HTML of a notice that a screen reader reads out at once; nothing without a text."""
    return f'<p role="alert" class="notice">{escape(text)}</p>' if text else ""


def reporting(handler: Callable[..., Any], place: Any) -> Callable[..., Any]:
    """A handler whose errors appear in a component of the page.

    Args:
        handler: takes the event's inputs and returns new values by component, or yields several of these.
        place: the ``gr.HTML`` that shows the notice; a handler that succeeds clears it.
    """
    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def reporting_each(*args: Any) -> Iterator[dict[Any, Any]]:
            values = None
            try:
                for values in handler(*args):
                    yield {place: "", **values}
                if values is None:  # Gradio empties all outputs of a generator that ends at once
                    yield {place: ""}
            except Exception as error:
                yield {place: notice(sentence(error))}

        return reporting_each

    @functools.wraps(handler)
    def reported(*args: Any) -> dict[Any, Any]:
        try:
            return {place: "", **handler(*args)}
        except Exception as error:
            return {place: notice(sentence(error))}

    return reported
