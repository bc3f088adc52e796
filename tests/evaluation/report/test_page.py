"""The page: whole, self-contained, and safe whatever a record holds."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from lcg_lightning.cli import main
from lcg_lightning.evaluation import gallery
from lcg_lightning.evaluation.report import svg
from tests.evaluation.report import made

VOID = {"meta", "img", "br", "hr", "link", "input", "path", "use"}


class Page(HTMLParser):
    """Elements with their attributes, and the text of each; end tags must match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.found = [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.found.append([tag, dict(attributes), ""])
        if tag not in VOID:
            self.open.append(self.found[-1])

    def handle_startendtag(self, tag, attributes):
        self.found.append([tag, dict(attributes), ""])

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for element in self.open:
            element[2] += data

    def all(self, tag, **attributes):
        return [e for e in self.found if e[0] == tag and attributes.items() <= e[1].items()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made.board(tmp_path_factory.mktemp("board"))


@pytest.fixture(scope="module")
def text(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    before = sorted(folder.rglob("*"))
    assert main(["leaderboard", str(folder), f"--out={out}"]) == 0
    assert sorted(folder.rglob("*")) == before
    assert {"leaderboard.md", "leaderboard.json", "leaderboard.html"} <= {path.name for path in out.iterdir()}
    return (out / "leaderboard.html").read_text()


def test_the_page_holds_every_row_and_needs_nothing_else(text, folder):
    page = Page(text)
    assert "http" not in text
    assert not [e for e in page.found if e[0] in ("link", "iframe", "object")]
    sources = [e[1]["src"] for e in page.found if "src" in e[1]]
    assert sources
    assert all(source.startswith("data:image/webp;base64,") for source in sources)
    bodies = [e[2] for e in page.all("tbody")]
    for path in folder.rglob("record.json"):
        assert any(str(path.relative_to(folder)) in body for body in bodies)
    ids = [e[1]["id"] for e in page.found if "id" in e[1]]
    assert len(set(ids)) == len(ids)
    for e in page.found:
        assert e[1].get("href", "#")[1:] in ["", *ids]


def test_what_a_record_holds_is_text(text):
    page = Page(text)
    assert len(page.all("script")) == 1
    assert not page.all("b")
    assert len([e for e in page.all("button") if e[2] == "<script>alert(1)</script>"]) == 4
    assert "Hat <b>" in [e[2] for e in page.all("th")]


def test_commands_ranks_failures_and_seeds_are_shown(text):
    page = Page(text)
    assert "lcg test --name=lcg '--out=a b'" in [e[2] for e in page.all("pre")]
    assert [e[2] for e in page.all("td", **{"class": "failed"})] == ["failed: latents & more"]
    assert page.all("sup", title="rank")
    (several,) = [e[2] for e in page.all("tbody") if "over seeds" in e[2]]
    assert "seed0/record.json: seed 0, prior 00000000" in several
    assert "seed1/record.json" in several


def test_edits_are_side_by_side_with_hits_and_misses(text):
    page = Page(text)
    gallery_of_worlds = page.all("table", **{"class": "edits"})
    assert len(gallery_of_worlds) == 2
    cells = [e for e in page.found if e[0] == "td" and e[1].get("class") in ("hit", "miss", "")]
    assert [e[1]["class"] for e in cells[:8]] == ["hit", "miss", "", *["hit"] * 5]
    image = page.all("img", alt="lcg, edit 8")[0][1]["src"].split(",")[1]
    assert np.asarray(Image.open(io.BytesIO(base64.b64decode(image)))).tolist() == [[[255] * 3] * 4] * 4


def test_curves_are_drawn_in_the_pages_colours(text):
    page = Page(text)
    assert len(page.all("svg")) == 2 + 1 + 1  # a trade-off for each world, one for the seeds, and one over curvature
    assert len([e for e in page.all("section") if "From a linear to a curved latent space" in e[2]]) == 1
    assert "currentColor" in text
    assert "#222222" not in text


def test_a_row_shows_its_samples_where_the_page_can_reach_them(tmp_path):
    made.run(tmp_path / "board/a # b", made.figures(0), method="shown")
    made.run(tmp_path / "board/bare", made.figures(1), method="bare")
    (tmp_path / "board/a # b/samples.png").touch()
    for out in ("board", "board/below", "elsewhere"):
        assert main(["leaderboard", str(tmp_path / "board"), f"--out={tmp_path / out}"]) == 0
    page = Page((tmp_path / "board/leaderboard.html").read_text())
    (image,) = page.all("img")
    assert image[1]["src"] == "a%20%23%20b/samples.png"
    assert "shown" in image[1]["alt"]
    for out in ("board/below", "elsewhere"):
        assert not Page((tmp_path / out / "leaderboard.html").read_text()).all("img")


def test_pictures_that_are_broken_are_left_out_with_a_warning(tmp_path, caplog):
    made.run(tmp_path / "a", made.figures(0))
    (tmp_path / "a" / gallery.EDITS).write_bytes(b"\x89PNG half")
    assert main(["leaderboard", str(tmp_path)]) == 0
    assert "not shown: " in caplog.text
    assert not Page((tmp_path / "leaderboard.html").read_text()).all("img")
    assert json.loads((tmp_path / "leaderboard.json").read_text())[0]["method"] == "lcg"


@pytest.mark.parametrize("n", [3, made.N])
def test_hits_are_those_of_the_run_that_the_pictures_belong_to(n, tmp_path):
    """Eight pictures, of which only n have figures; a record beside them, and figures of another run, mark nothing."""
    kept = [(i, torch.zeros(2, 3, 4, 4), ["source", "Hat"]) for i in range(8)]
    hits = {"acc_joint": np.arange(n) % 2.0}
    for name in ("a", "b"):
        made.run(tmp_path / name, hits, method=name)
        gallery.keep(kept, tmp_path / name / gallery.EDITS)
    made.records.write(made.record(method="impostor", n=n), tmp_path / "a/copy.json")
    made.samples.write({"acc_joint": np.ones(n)}, tmp_path / "b/samples.safetensors")
    assert main(["leaderboard", str(tmp_path)]) == 0
    page = Page((tmp_path / "leaderboard.html").read_text())
    marks = [e[1]["class"] for e in page.found if e[0] == "td" and e[1].get("class") in ("hit", "miss", "")]
    assert marks == [*(["miss", "hit"] * 4)[: min(n, 8)], *[""] * (8 - min(n, 8)), *[""] * 8]


def test_a_page_without_pictures_has_all_else(text, folder, tmp_path):
    assert main(["leaderboard", str(folder), f"--out={tmp_path}", "--pictures=false"]) == 0
    bare, whole = Page((tmp_path / "leaderboard.html").read_text()), Page(text)
    assert not bare.all("img")
    assert not bare.all("table", **{"class": "edits"})
    for tag in ("tbody", "pre", "svg"):
        kept = [e[2] for e in whole.all(tag) if "edits" not in e[1].get("class", "")]
        assert len([e[2] for e in bare.all(tag)]) == len(kept) - 2 * (tag == "tbody")  # of the two galleries


def test_figures_keep_their_words_and_places(tmp_path):
    """What the page draws is what Matplotlib drew, to a hundredth of a point, and a name with digits stays as it is."""
    name, figure = "x 1.23456  > y", Figure(figsize=(4, 3))
    (line,) = figure.add_subplot().plot([0.0, 1.0, 2.0], [0.123456, 3.0, 1.0], label=name)
    figure.legend()
    drawn = svg.inline(figure, "f")
    assert name in [e[2] for e in Page(drawn).all("text")]
    points = figure.axes[0].transData.transform(line.get_xydata()) * 72 / figure.dpi
    points[:, 1] = 3 * 72 - points[:, 1]
    numbers = [np.array(re.findall(r"-?[\d.]+", e[1]["d"]), float) for e in Page(drawn).all("path")]
    assert any(x.size == points.size and np.abs(x - points.flatten()).max() < 0.006 for x in numbers)
