"""Labelled latents of StyleGAN2 as published with StyleFlow and with LACE."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.data.annotated import AnnotatedLatents, LatentData
from lcg_lightning.errors import UserError
from lcg_lightning.formats.pickles import plain_names, read_array, read_pickle

LIGHTS = tuple(f"Light{i}" for i in range(9))
"""Coefficients of spherical harmonics."""

STYLEFLOW_SCHEMA = AttributeSchema(
    (
        Attribute("Male"),
        Attribute("Eyeglasses"),
        Attribute("Yaw", "continuous", low=-60, high=60),
        Attribute("Pitch", "continuous", low=-45, high=45),
        Attribute("Bald", "continuous"),
        Attribute("Beard", "continuous"),
        Attribute("Age", "continuous", low=0, high=100),
        Attribute("Smiling", "continuous"),
    )
)
"""Columns of StyleFlow's attributes.npy: angles in degrees, age in years, the other continuous ones in [0, 1]."""

LACE_ATTRIBUTES = (
    *(Attribute(name) for name in ("Male", "Eyeglasses", "Smiling", "Beard")),
    *(Attribute(name, "continuous") for name in ("Yaw", "Pitch", "Age", "Bald", "Width", "Light0", "Light3")),
)
"""The attributes that :class:`LACE` keeps by default. The file's continuous labels, including angles and age, lie in
about [0, 1]; the few values outside are clamped, so that 1 - |error| is LACE's accuracy."""


class StyleFlow(LatentData):
    """The labelled FFHQ latents of StyleFlow: 1000 faces with eight attributes.

    The last tenth of the rows is the test split. A tenth of the others, but at most 500 rows, is the val split.

    Args:
        latents: sg2latents.pickle.
        attributes: attributes.npy.
        light: light.npy, for nine more attributes, Light0 to Light8.
    """

    def __init__(self, latents: Path, attributes: Path, light: Path | None = None) -> None:
        super().__init__(latents=latents, attributes=attributes, light=light)
        self.latents, self.attributes, self.light = latents, attributes, light

    def read(self, latent_shape: tuple[int, ...]) -> AnnotatedLatents:
        """Read the files.

        Raises:
            UserError: a file has another format, latents have another shape, or the numbers of rows differ.
        """
        labels, schema = _read_rows(self.attributes, len(STYLEFLOW_SCHEMA)), STYLEFLOW_SCHEMA
        if self.light is not None:
            light = _read_rows(self.light, len(LIGHTS))
            _refuse_unequal(self.attributes, len(labels), self.light, len(light))
            labels = np.concatenate([labels, light], axis=1)
            lights = (Attribute(name, "continuous", low=-1, high=2) for name in LIGHTS)
            schema = AttributeSchema((*schema, *lights))
        data = read_pickle(self.latents, plain_names(), "a StyleFlow latents pickle")
        latents = _fit(_entry(data, self.latents, "Latent"), latent_shape, self.latents)
        _refuse_unequal(self.latents, len(latents), self.attributes, len(labels))
        return _annotated(latents, labels, schema, test=len(latents) // 10)


class _Layout(NamedTuple):
    """The file layout of one of LACE's data sets."""

    latents: str
    labels: str
    columns: tuple[str, ...]


_FFHQ = _Layout(
    "Latent",
    "att_light",
    (
        *("Width", "Height", "Smiling", "Pitch", "Roll", "Yaw", "Male", "Age", "Beard", "Eyeglasses", "Bald"),
        *("Hair_Color", *LIGHTS),
    ),
)
_METFACES = _Layout(
    "ws_latent",
    "pred",
    (
        *("Yaw", "Light3", "Smiling", "Male", "Age", "Eyeglasses", "Pitch", "Hair_Color", "Beard", "Bald"),
        *("Light0", "Width"),
    ),
)


class LACE(LatentData):
    """LACE's labelled latents of FFHQ or MetFaces, depending on the files.

    The last tenth of the rows is the test split (for the 5650 published MetFaces, the last 650). The rows before them
    are the val split: a tenth of the remaining rows, but at most 500. Missing labels are unknown. The files use 1 for
    women; Male is 1 for men. A binary Beard is 1 if the file's value is above 0.1.

    Args:
        latents: all_latents.pickle, or MetFaces' ws_latent.pickle.
        labels: att_light.pickle, or MetFaces' pred.pickle.
        attributes: attributes to keep, out of Yaw, Pitch, Roll, Width, Height, Male, Age, Smiling, Eyeglasses, Beard,
            Bald, Hair_Color (five classes) and Light0 to Light8. MetFaces has no Roll or Height, and only Light0 and
            Light3. By default :data:`LACE_ATTRIBUTES`; give your own for files in other units, such as age in years.
    """

    def __init__(self, latents: Path, labels: Path, attributes: list[Attribute] | None = None) -> None:
        super().__init__(latents=latents, labels=labels, attributes=attributes)
        self.latents, self.labels = latents, labels
        self.attributes = LACE_ATTRIBUTES if attributes is None else tuple(attributes)

    def read(self, latent_shape: tuple[int, ...]) -> AnnotatedLatents:
        """Read the files.

        Raises:
            UserError: a file has another format or lacks an attribute, latents have another shape, or the numbers of
                rows differ.
        """
        data = read_pickle(self.latents, plain_names(), "a LACE latents pickle")
        layout = _METFACES if isinstance(data, dict) and _METFACES.latents in data else _FFHQ
        held = _entry(data, self.latents, layout.latents)
        latents = _fit(_first(held, self.latents) if layout is _METFACES else held, latent_shape, self.latents)
        table = _entry(read_pickle(self.labels, plain_names(), "a LACE labels pickle"), self.labels, layout.labels)
        values = _numbers(_first(table, self.labels), self.labels)
        if values.ndim != 2 or values.shape[1] != len(layout.columns):
            raise UserError(f"{self.labels} holds labels {values.shape}, not (rows, {len(layout.columns)})")
        _refuse_unequal(self.latents, len(latents), self.labels, len(values))
        known = AttributeSchema(tuple(Attribute(name) for name in layout.columns))
        columns, schema = [], []
        for attribute in self.attributes:
            try:
                index = known.index(attribute.name)
            except UserError as error:
                raise UserError(f"{self.labels}: {error}") from None
            name, column = layout.columns[index], values[:, index]
            if name == "Male":
                column = 1 - column
            elif name == "Beard" and attribute.kind == "binary":
                column = np.where(np.isnan(column), np.nan, column > 0.1)
            elif self.attributes is LACE_ATTRIBUTES and attribute.kind == "continuous":
                column = np.where(abs(column - 0.5) <= 1, column.clip(0, 1), column)
            columns.append(column)
            schema.append(replace(attribute, name=name))
        test = 650 if layout is _METFACES and len(latents) == 5650 else len(latents) // 10
        return _annotated(latents, np.stack(columns, axis=1), AttributeSchema(tuple(schema)), test)


def _annotated(latents: Tensor, labels: NDArray[np.float64], schema: AttributeSchema, test: int) -> AnnotatedLatents:
    n = len(latents)
    val = min(500, (n - test) // 10)
    splits = ["train"] * (n - test - val) + ["val"] * val + ["test"] * test
    ids = [f"{row:05d}" for row in range(n)]
    return AnnotatedLatents(ids, torch.tensor(labels, dtype=torch.float32), schema, splits, latents=latents)


def _read_rows(path: Path, columns: int) -> NDArray[np.float64]:
    """The rows (N, columns) of a .npy file, ignoring axes of length 1."""
    array = read_array(path)
    if array.ndim < 2 or array.size != len(array) * columns:
        raise UserError(f"{path} holds {array.shape}, not {columns} numbers a row")
    return array.reshape(len(array), columns)


def _entry(data: Any, path: Path, key: str) -> Any:
    if not isinstance(data, dict) or key not in data:
        raise UserError(f"{path} holds no {key}; give the published file")
    return data[key]


def _first(data: Any, path: Path) -> Any:
    if not isinstance(data, list | tuple | np.ndarray) or not len(data):
        raise UserError(f"{path} holds no list of arrays; give the published file")
    return data[0]


def _numbers(data: Any, path: Path, dtype: type[Any] = np.float64) -> NDArray[Any]:
    try:
        return np.asarray(data, dtype=dtype)  # None becomes NaN
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} holds something other than an array of numbers ({error}); fetch it again") from None


def _fit(data: Any, latent_shape: tuple[int, ...], path: Path) -> Tensor:
    """Latents (N, *latent_shape) from one w per row (N, D), or one per layer (N, L, D) or (N, 1, L, D)."""
    latents = _numbers(data, path, np.float32)
    if latents.ndim == 4 and latents.shape[1] == 1:
        latents = latents[:, 0]
    shape, wanted = latents.shape[1:], tuple(latent_shape)
    if len(shape) == 2 and wanted == shape[1:]:
        if not (latents == latents[:, :1]).all():
            raise UserError(
                f"{path}: these are W+ latents, {shape[0]} different w a row; load the generator with space: w+"
            )
        latents = latents[:, 0]
    elif len(wanted) == 2 and shape == wanted[1:]:
        raise UserError(f"{path}: these are W latents, one w a row; load the generator with space: w")
    elif shape != wanted or len(shape) not in (1, 2):
        raise UserError(f"{path} holds latents {shape}, the generator takes {wanted}; load the one they belong to")
    return torch.tensor(latents)


def _refuse_unequal(path: Path, rows: int, other: Path, others: int) -> None:
    if rows != others:
        raise UserError(f"{path} has {rows} rows and {other} {others}; give files of one data set")
