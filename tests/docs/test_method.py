"""docs/method.md: its code gives what it says, and its table has every option."""

import inspect
import re

import torch

from lcg_lightning.methods.lcg import LatentClassifierGuidance
from tests.conftest import ROOT

PAGE = (ROOT / "docs/method.md").read_text()


def test_the_code_reduces_an_edit_to_arithmetic():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    names = {}
    exec(code, names)
    expected = names["scale"] * names["tau"] ** 2 * names["g"]
    torch.testing.assert_close(names["moved"], expected.expand(5, 3), rtol=0.01, atol=0)


def test_every_option_is_explained():
    (table,) = re.findall(r"## Options.*?\n\n(\|.*?)\n\n", PAGE, flags=re.DOTALL)
    explained = set(re.findall(r"`(\w+)`", "".join(row.split(" | ")[0] for row in table.splitlines()[2:])))
    assert explained == inspect.signature(LatentClassifierGuidance).parameters.keys() - {"prior", "classifier"}
