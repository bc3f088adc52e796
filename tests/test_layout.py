"""The order of the package's folders, which README.md says."""

import ast
import re

from tests.conftest import ROOT

PACKAGE = ROOT / "lcg_lightning"


def imported(file):
    """Parts of the package that a file imports, at its top or later."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lcg_lightning"):
            names = [node.module] if "." in node.module else [f"lcg_lightning.{each.name}" for each in node.names]
        elif isinstance(node, ast.Import):
            names = [each.name for each in node.names if each.name.startswith("lcg_lightning.")]
        else:
            continue
        yield from (name.split(".")[1] for name in names)


def test_every_part_is_in_the_readme_and_uses_only_those_before_it():
    table = (ROOT / "README.md").read_text().split("## Where things are")[1]
    order = [
        name.removesuffix(".py").rstrip("/")
        for row in re.findall(r"^\| (`.*?) \|", table, re.M)[1:]
        for name in re.findall("`(.*?)`", row)
    ]
    files = [file for file in PACKAGE.rglob("*.py") if file.parent != PACKAGE or not file.name.startswith("__")]
    parts = {file: file.relative_to(PACKAGE).parts[0].removesuffix(".py") for file in files}
    assert set(parts.values()) == set(order)
    upward = [
        f"{file.relative_to(ROOT)}: {name}"
        for file, part in parts.items()
        for name in imported(file)
        if order.index(name) > order.index(part)
    ]
    assert upward == []
