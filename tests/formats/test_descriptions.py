"""Descriptions call what they name, with what its signature takes; a wrong one is one short line."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from torch import nn

from lcg_lightning.errors import UserError
from lcg_lightning.formats.descriptions import call, construct, plain_spec, read_spec


@dataclass
class Size:
    side: int
    crop: tuple[int, int] | None = None
    resize: Literal["area", "bilinear"] = "area"


def described(path: Path, **size: Any) -> tuple[Path, Size]:
    """A file and its size."""
    return path, Size(**size)


def test_a_function_takes_what_its_signature_says():
    assert call(described, {"path": "a", "side": 3, "crop": [1, 2]}, "x") == (Path("a"), Size(3, (1, 2)))
    assert call(Size, {"side": 3}, "x") == Size(3)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"sid": 3}, "x.yaml: unknown key 'sid'; did you mean side? (known: path, side, crop, resize)"),
        ({}, "x.yaml: side is missing"),
        ({"side": "a"}, "x.yaml: side is 'a'; give int"),
        ({"side": 3, "resize": "cubic"}, "x.yaml: resize is 'cubic'; give 'area', 'bilinear'"),
        ({"side": 3, "crop": [1]}, "x.yaml: crop is [1]; give tuple with 2 elements or null"),
        ({"side": 3, "path": 5}, "x.yaml: path is 5; give Path"),
    ],
)
def test_wrong_arguments_are_one_line(given, line):
    with pytest.raises(UserError) as error:
        call(described, {"path": "a", **given}, "x.yaml")
    assert str(error.value) == line


def test_a_class_is_named_by_its_path():
    arguments = {"in_features": 3, "out_features": 2}
    for given in ({"init_args": arguments}, arguments):
        layer = construct(nn.Module, {"class_path": "torch.nn.Linear", **given}, "x.yaml")
        assert type(layer) is nn.Linear
        assert layer.weight.shape == (2, 3)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            {"class_path": "torch.nn.Nope"},
            "torch.nn.Nope cannot be imported (module 'torch.nn' has no",
        ),
        ({"class_path": "no_such.Net"}, "no_such.Net cannot be imported (No module named 'no_such')"),
        (
            {"class_path": "collections.OrderedDict"},
            "give the dotted path of a subclass of torch.nn.modules.module.Module",
        ),
        ({"class_path": 5}, "class_path is 5"),
        ({"class_path": "torch.nn.Linear", "init_args": 5}, "init_args is 5"),
        ({"class_path": "torch.nn.Linear", "in_feature": 5}, "unknown key 'in_feature'; did you mean in_features?"),
    ],
)
def test_a_class_that_cannot_be_made_is_one_line(given, line):
    with pytest.raises(UserError) as error:
        construct(nn.Module, given, "x.yaml")
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_a_yaml_file_that_would_hang_or_grow_is_refused(tmp_path):
    path = tmp_path / "net.yaml"
    bomb = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    bomb += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    for text in ("\n".join(bomb), "a: &a [*a]", "[" * 100_000):
        path.write_text(text)
        with pytest.raises(UserError, match=r"^\S*net\.yaml [^\n]{0,300}$"):
            read_spec(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"net\.yaml is not a regular file"):
        read_spec(path)


def test_what_was_named_is_plain_values():
    spec = {"class_path": "a.B", "init_args": {"path": Path("x"), "net": nn.Identity(), "shape": (1, 2.5, None)}}
    inner = {"path": "x", "net": {"class_path": "torch.nn.modules.linear.Identity"}, "shape": [1, 2.5, None]}
    assert plain_spec(spec) == {"class_path": "a.B", "init_args": inner}
    assert plain_spec("synthfaces") == "synthfaces"
