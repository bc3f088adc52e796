import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from lcg_lightning.errors import UserError
from lcg_lightning.evaluation.figures import grid, strips
from lcg_lightning.evaluation.plots import accuracy_identity, over_curvature

# plain tiles, told apart by colour
RED, GREEN, BLUE = ([1, -1, -1], [-1, 1, -1], [-1, -1, 1])


def tiles(*colours):
    return torch.tensor(colours, dtype=torch.float32)[:, :, None, None].expand(-1, 3, 16, 16)


def layout(path):
    """Centre (x, y) in pixels of each pure colour, and the size of the picture."""
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    centres = {}
    for name, colour in {"red": RED, "green": GREEN, "blue": BLUE}.items():
        ys, xs = np.nonzero((picture == (np.array(colour) + 1) * 255 // 2).all(2))
        if len(xs):
            centres[name] = (xs.mean(), ys.mean())
    return centres, picture


def test_grid_fills_rows_from_the_left(tmp_path):
    grid(tiles(RED, GREEN, BLUE), ["Smiling & ~Eyeglasses & yaw=0.3", "", "Hat"], 2, tmp_path / "g.png")
    at, picture = layout(tmp_path / "g.png")
    assert at["red"][0] == pytest.approx(at["blue"][0], abs=1)
    assert at["red"][1] == pytest.approx(at["green"][1], abs=1)
    assert at["green"][0] > at["red"][0]
    assert at["blue"][1] > at["red"][1]
    head = picture[: int(at["red"][1]) - 115]
    half = picture.shape[1] // 2
    assert head[:, :half].min() < 80  # a caption above red
    assert head[:, half:].min() == 255  # none above green


def test_strips_share_headings_only_if_equal(tmp_path):
    images = tiles(RED, GREEN, BLUE)
    same, other = ["source", "Smiling", "Hat"], ["source", "Bald", "Hat"]
    strips([(images, same), (images, same)], tmp_path / "same.png")
    strips([(images, same), (images, other)], tmp_path / "other.png")
    shared, own = (layout(tmp_path / name)[1] for name in ("same.png", "other.png"))
    assert shared.shape[1] == own.shape[1]
    assert shared.shape[0] < own.shape[0]
    at, _ = layout(tmp_path / "same.png")
    assert at["red"][0] < at["green"][0] < at["blue"][0]


def test_a_title_stands_above_and_notes_below(tmp_path):
    title = ["Smiling & " * 40, "lcg", "p: probability"]
    grid(tiles(RED), [""], 8, tmp_path / "plain.png")
    grid(tiles(RED), [""], 8, tmp_path / "said.png", ["p 0.97"], title)
    (_, plain), (at, said) = (layout(tmp_path / name) for name in ("plain.png", "said.png"))
    x, y = map(int, at["red"])
    assert said.shape[1] > 2 * plain.shape[1]  # room for words above a single image
    assert said[: y - 78].min() < 80  # the title
    assert said[y + 78 :, : 2 * x].min() < 80  # the note
    assert said[:, -4:].min() == 255  # nothing runs over the edge
    assert said[y - 74 : y + 74, x - 74 : x + 74].reshape(-1, 3).std(0).max() == 0  # nothing lies on the image


def test_long_strips_go_on_in_a_further_row(tmp_path):
    colours = [RED] + [[-0.5, -0.5, -0.5]] * 18 + [BLUE]
    captions = ["source", *map(str, range(18)), "last"]
    strips([(tiles(*colours), captions)], tmp_path / "s.png", [[f"p {i}" for i in range(20)]])
    at, picture = layout(tmp_path / "s.png")
    assert at["blue"][1] > at["red"][1] + 150
    assert picture.shape[1] < 2100
    x, y = map(int, at["blue"])
    assert picture[y - 100 : y - 80, x - 40 : x + 40].min() < 80  # its caption is above it


def test_captions_that_do_not_match_are_refused(tmp_path):
    with pytest.raises(UserError, match="2 images with 1 captions"):
        grid(tiles(RED, BLUE), ["one"], 2, tmp_path / "g.png")
    with pytest.raises(UserError, match="strip of 2 images has 1 captions"):
        strips([(tiles(RED, BLUE), ["one"])], tmp_path / "s.png")
    with pytest.raises(UserError, match="no strip"):
        strips([], tmp_path / "s.png")
    assert not list(tmp_path.iterdir())


def row(method, scale, joint, identity, nfe=15, judge="j"):
    bounds = {"acc_joint": [joint - 0.1, None], "id": [identity - 0.05, identity + 0.02]}
    keys = {"method": method, "scale": scale, "acc_joint": joint, "id": identity, "nfe": nfe, "judge": judge}
    return keys | {"intervals": bounds, "seeds": [0], "n": 9, "store": "s", "generator": "g", "identity_network": "i"}


def test_accuracy_identity_draws_a_line_per_method(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: (drawn.append(self), path.touch()))
    rows = [
        row("lcg", 4, 0.9, 0.6),
        row("lcg", 1, 0.5, 0.9),
        row("lcg", 2, 0.7, 0.8),
        row("lcg", 1, 0.4, 0.9, nfe=50),
        row("lace", 3, 0.6, 0.9),
        row("lace", 4, 0.7, 0.8, judge="k"),
    ]
    rows += [row("arithmetic", None, 0.3, 0.7), row("lace", 1, 0.3, 0.7) | {"id": None}]
    assert accuracy_identity(rows, tmp_path / "a.png", "edit")
    (axes,) = drawn[0].axes
    lines = {bar.get_label(): bar.lines[0].get_xydata().tolist() for bar in axes.containers}
    assert lines == {
        "arithmetic": [[0.7, 0.3]],
        "lace, judge j": [[0.9, 0.6]],
        "lace, judge k": [[0.8, 0.7]],
        "lcg, NFE 15": [[0.9, 0.5], [0.8, 0.7], [0.6, 0.9]],
        "lcg, NFE 50": [[0.9, 0.4]],
    }
    assert sorted(text.get_text() for text in axes.texts) == ["1", "2", "4"]  # of the line with several
    horizontal, vertical = (bars.get_segments()[0] for bars in axes.containers[0].lines[2])
    np.testing.assert_allclose(horizontal, [[0.65, 0.3], [0.72, 0.3]])
    np.testing.assert_allclose(vertical, [[0.7, 0.2], [0.7, 0.3]])


def test_accuracy_identity_without_edits_writes_nothing(tmp_path):
    assert not accuracy_identity([row("lcg", 1, 0.5, 0.5) | {"id": None}], tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_curvature_draws_one_line_per_method_unless_it_has_several_scales_at_a_curvature():
    rows = [row("lcg", 4, 0.7, 0.8) | {"curvature": 0.3}, row("lcg", 8, 0.9, 0.9) | {"curvature": 0.0}]
    rows += [row("lcg", 2, 0.2, 0.3) | {"curvature": 1.0}]
    rows += [row("lace", s, s / 10, 0.5) | {"curvature": c} for s in (1, 2) for c in (0.0, 1.0)]
    joint, _ = over_curvature(rows).axes
    lines = {bar.get_label(): bar.lines[0].get_xydata().tolist() for bar in joint.containers}
    assert lines == {
        "lace, scale 1": [[0.0, 0.1], [1.0, 0.1]],
        "lace, scale 2": [[0.0, 0.2], [1.0, 0.2]],
        "lcg": [[0.0, 0.9], [0.3, 0.7], [1.0, 0.2]],
    }
