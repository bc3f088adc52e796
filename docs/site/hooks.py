"""Additions to MkDocs: pages from elsewhere in the repository, equations as MathML, and notebooks as pages."""

import html
import re
from pathlib import Path
from posixpath import dirname, join, normpath, relpath
from typing import Any

import nbformat
from math_core import LatexToMathML
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parents[2]
ROOMS = ("conditions", "data", "generators", "methods", "models", "diffusion", "evaluation", "judges")
"""Packages with a page made of their docstrings."""
BENCHMARK = ("README.md", "speed/README.md", "results/*.md", "results/*.png", "results/*/leaderboard.html")
"""What the site shows of ``benchmarks``."""
API = """# `lcg_lightning.{room}`

::: lcg_lightning.{room}
    options:
      show_submodules: {submodules}
"""
"""Such a page; users import conditions from the package itself."""
TO_MATHML = LatexToMathML(annotation=True)


def on_files(files: Files, config: Any) -> Files:
    """Adds the benchmark's pages and the API, and puts pages in place of notebooks."""
    for path in (path for pattern in BENCHMARK for path in (ROOT / "benchmarks").glob(pattern)):
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    for room in ROOMS:
        text = API.format(room=room, submodules=str(room != "conditions").lower())
        files.append(File.generated(config, f"api/{room}.md", content=text))
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        name = Path(notebook.src_uri).stem
        text, pictures = _notebook(notebook.content_string, name)
        files.remove(notebook)
        files.append(File.generated(config, f"{name}.md", content=text))
        for path, content in pictures.items():
            files.append(File.generated(config, path, content=content))
    return files


def _notebook(content: str, name: str) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, and its pictures by path, which are described as the notebook does it."""
    notebook = nbformat.reads(content, 4)
    text, resources = MarkdownExporter().from_notebook_node(notebook, {"output_files_dir": f"{name}-files"})
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    alts = iter([about["alt"] for output in outputs for about in output.get("metadata", {}).values()])
    return re.sub(r"!\[(?:png|jpeg)\]", lambda _: f"![{next(alts)}]", text), resources["outputs"]


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Leads links between folders of the repository to where the site has their files."""
    here = page.file.src_uri
    folder = dirname(here if here.startswith("benchmarks/") else join("docs", here))

    def led(link: re.Match[str]) -> str:
        target = normpath(join(folder, link["path"])).removeprefix("docs/").replace(".ipynb", ".md")
        if target.startswith("benchmarks/"):  # a leaderboard's page shows more than its Markdown
            target = target.replace("/leaderboard.md", "/leaderboard.html")
        return f"]({relpath(target, dirname(here) or '.')}"

    return re.sub(r"\]\((?P<path>[\w./-]+\.(?:md|ipynb|html|png|webp))", led, markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Draws equations as MathML, which browsers show without a script."""

    def drawn(equation: re.Match[str]) -> str:
        latex = html.unescape(equation["latex"])
        return TO_MATHML.convert_with_local_state(latex, displaystyle=equation["tag"] == "div")

    found = r'<(?P<tag>div|span) class="arithmatex">\\[(\[](?P<latex>.*?)\\[)\]]</(?P=tag)>'
    return re.sub(found, drawn, content, flags=re.DOTALL)
