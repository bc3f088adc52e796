"""The documentation site: it builds without a warning, every link in it leads somewhere, nothing comes from outside."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest

from tests.conftest import ROOT


class Page(HTMLParser):
    """What a page refers to, the anchors that it has, and its pictures without a description."""

    def __init__(self, text):
        super().__init__()
        self.links, self.loads, self.anchors, self.mute = set(), set(), {""}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.anchors |= {given[key] for key in ("id", "name") if given.get(key)}
        if tag in ("a", "area") and given.get("href"):
            self.links.add(given["href"])
        elif tag != "a":
            self.loads |= {given[key] for key in ("src", "href") if given.get(key)}
        if tag == "img" and not given.get("alt"):
            self.mute.append(given.get("src"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Every page of the built site, by its file."""
    pytest.importorskip("mkdocs", reason="the site needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        check=True,
        timeout=590,
    )
    return {file: Page(file.read_text()) for file in folder.rglob("*.html")}


def test_every_link_leads_somewhere(site):
    lost = []
    for file, page in site.items():
        for link in page.links | page.loads:
            url = urlsplit(link)
            if url.scheme or file.name == "404.html":  # that page is served under any address
                continue
            target = (file.parent / unquote(url.path)).resolve() if url.path else file
            if not target.is_file() or (target in site and unquote(url.fragment) not in site[target].anchors):
                lost.append(f"{file.name}: {link}")
    assert not lost


def test_nothing_is_loaded_from_elsewhere(site):
    assert {link for page in site.values() for link in page.loads if urlsplit(link).scheme not in ("", "data")} == set()


def test_pictures_say_what_they_show_and_equations_are_drawn(site):
    assert [picture for page in site.values() for picture in page.mute] == []
    texts = {file.name: file.read_text() for file in site}
    assert not [name for name, text in texts.items() if 'class="arithmatex"' in text]
    assert texts["method.html"].count("<math") > 20


def test_links_lead_to_files_of_the_repository():
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            made = link.startswith("api/")  # from docstrings, on the site alone
            assert urlsplit(link).scheme or made or (page.parent / link).exists(), f"{page}: {link}"
