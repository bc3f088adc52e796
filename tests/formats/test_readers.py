"""Every reader of a file refuses anything but a regular file at once; reading a pipe could block forever."""

import os
from functools import partial

import pytest

from lcg_lightning.errors import UserError
from lcg_lightning.formats import tensors
from lcg_lightning.formats.checkpoints import peek, read_checkpoint
from lcg_lightning.formats.pickles import plain_names, read_array, read_pickle
from lcg_lightning.generators.load import load_generator
from lcg_lightning.judges.load import load_attribute_judge, load_identity_network

OUTPUTS = [{"name": "a", "columns": [0]}]
READERS = {
    "checkpoint": read_checkpoint,
    "pickle": partial(read_pickle, names=plain_names(), what="a pickle"),
    "array": read_array,
    "safetensors": tensors.read,
    "generator": load_generator,
    "described generator": lambda path: load_generator({"path": str(path)}),
    "judge": lambda path: load_attribute_judge({"path": str(path), "size": 8, "outputs": OUTPUTS}),
    "identity": lambda path: load_identity_network({"path": str(path), "size": 8}),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file_is_one_line(tmp_path, reader):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "pipe", tmp_path / "loop", tmp_path, tmp_path / ("a" * 300)):
        with pytest.raises(UserError) as error:
            READERS[reader](path)
        assert str(error.value).startswith(f"{path} ")
        assert "\n" not in str(error.value)
    assert peek(tmp_path / "pipe") == {}


@pytest.mark.parametrize("load", [load_generator, load_attribute_judge, load_identity_network])
def test_a_name_that_no_file_can_have_is_one_line(load):
    with pytest.raises(UserError, match=r"^[^\n]*a{300}[^\n]*synthfaces[^\n]*$"):
        load("a" * 300)
