"""Pickles of numbers come back as numpy wrote them; crafted ones neither run code nor reach numpy's own memory."""

import pickle

import numpy as np
import pytest

from lcg_lightning.errors import UserError
from lcg_lightning.formats.pickles import plain_names, read_array, read_pickle


def written(path, value, protocol=4):
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


def read(path):
    return read_pickle(path, plain_names(), "a pickle of numbers")


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_numbers_come_back_whole(tmp_path, protocol):
    objects = np.empty((2, 2), object)
    objects[:] = [[None, 1], ["x", np.float32(2.5)]]
    arrays = {
        "double": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        "swapped": np.arange(3, dtype=">f4"),
        "bool": np.array([True, False]),
        "empty": np.zeros((0, 4), np.float32),
        "objects": objects,
    }
    value = {"deep": [arrays, (np.float64(0.1), np.int64(7))]}
    found, scalars = read(written(tmp_path / "x.pkl", value, protocol))["deep"]
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].shape == array.shape
    assert scalars == (0.1, 7)


class State:
    """An array that is rebuilt from whatever state a crafted file gives."""

    def __init__(self, *state):
        self.state = state

    def __reduce__(self):
        return np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), self.state


@pytest.mark.parametrize(
    "state",
    [
        (1, (1,), np.dtype("O"), False, b"AAAAAAAA"),  # bytes that numpy would follow as pointers
        (1, (1000,), np.dtype("f8"), False, b"short"),
        (1, (1,), np.dtype([("a", "O")]), False, b"AAAAAAAA"),
        (1, (1,), np.dtype("V8"), False, b"AAAAAAAA"),
        (1,),
    ],
)
def test_crafted_arrays_are_one_line(tmp_path, state):
    with pytest.raises(UserError, match="not a readable pickle of numbers") as error:
        np.asarray(read(written(tmp_path / "x.pkl", [State(*state)]))[0], dtype=float)
    assert "\n" not in str(error.value)


def test_arrays_of_anything_but_numbers_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", np.zeros(2))
    np.save(tmp_path / "b.npy", np.array([1j]))
    np.save(tmp_path / "c.npy", np.array([None]), allow_pickle=True)
    for name in ("a.npz", "b.npy", "c.npy", "d.npy"):
        with pytest.raises(UserError, match=name):
            read_array(tmp_path / name)
