"""Reads the package's docstrings as Markdown: roles become links; examples and indented text become code."""

import re
import textwrap
from typing import Any

import griffe


class Roles(griffe.Extension):
    """Changes every docstring of the package before its pages are made."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Goes through everything that the package defines."""
        todo: list[griffe.Object | griffe.Alias] = [pkg]
        while todo:
            thing = todo.pop()
            if isinstance(thing, griffe.Object):
                todo += thing.members.values()
                if thing.docstring:
                    thing.docstring.value = _markdown(thing.docstring.value, thing)


def _markdown(text: str, where: griffe.Object) -> str:
    """The docstring of an object; what has no place on the site is named without a link."""

    def linked(role: re.Match[str]) -> str:
        name = role["name"]
        shown = name.rsplit(".", 1)[-1] if role["short"] else name
        try:
            target = name if name.startswith("lcg_lightning.") else where.resolve(name)
        except griffe.NameResolutionError:
            target = name
        return f'<autoref identifier="{target}" optional><code>{shown}</code></autoref>'

    text = re.sub(r":(?:func|class|meth|data|attr|mod):`(?P<short>~?)(?P<name>[\w.]+)`", linked, text)
    text = re.sub(r"``([^`]+)``", r"`\1`", text)
    text = re.sub(r"^>>> .*(?:\n.+)*", lambda code: _fenced(code[0], "pycon"), text, flags=re.MULTILINE)
    return re.sub(r":(:\n\n)((?: {4}.*\n?)+)", lambda code: f":\n\n{_fenced(code[2], 'text')}\n", text)


def _fenced(code: str, language: str) -> str:
    return f"```{language}\n{textwrap.dedent(code).rstrip()}\n```"
