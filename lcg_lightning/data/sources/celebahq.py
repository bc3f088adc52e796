"""CelebA-HQ: a folder of images, an attribute file, and measure files such as the head pose."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.data.annotated import AnnotatedImages, ImageData
from lcg_lightning.data.images import find_images, match_rows
from lcg_lightning.data.sources.annotations import read_mapping, read_splits, read_table, refuse_alike, refuse_missing
from lcg_lightning.errors import UserError


class CelebAHQ(ImageData):
    """Images with an attribute file; rows and images are matched by file name without the suffix.

    Args:
        images: folder of image files, or an LMDB.
        annotations: attribute file, with values -1 and 1 (``CelebAMask-HQ-attribute-anno.txt``).
        attributes: the binary attributes to keep, in this order; all of them by default.
        measure_files: files of numbers in the same format (``CelebAMask-HQ-pose-anno.txt``).
        measures: the columns of those files to keep, as continuous attributes with their ranges.
        partition: file of names and 0 (train), 1 (val) or 2 (test) (``list_eval_partition.txt``); by default a hash
            of the id decides.
        mapping: ``CelebA-HQ-to-CelebA-mapping.txt``, for a partition with CelebA's file names.
    """

    def __init__(
        self,
        images: Path,
        annotations: Path,
        attributes: list[str] | None = None,
        measure_files: list[Path] | None = None,
        measures: list[Attribute] | None = None,
        partition: Path | None = None,
        mapping: Path | None = None,
    ) -> None:
        super().__init__(
            images=images,
            annotations=annotations,
            attributes=attributes,
            measure_files=measure_files,
            measures=measures,
            partition=partition,
            mapping=mapping,
        )
        if bool(measure_files) != bool(measures):
            raise UserError("measures need both their files and the columns to keep; give both or neither")
        if mapping and not partition:
            raise UserError(f"mapping {mapping} serves to read a partition, and there is none; give both or neither")
        self.images, self.annotations, self.attributes = images, annotations, attributes
        self.measure_files, self.measures = measure_files or [], measures or []
        self.partition, self.mapping = partition, mapping

    def read(self, image_size: int | None = None) -> AnnotatedImages:
        """The images in the order of the annotation file; label columns are attributes, then measures.

        Raises:
            UserError: an image without a row or a row without an image, a value other than -1 or 1, an unknown
                attribute or measure (the message gives the nearest name), a measure out of range, or a malformed file.
        """
        names, rows, signs = read_table(self.annotations)
        wrong = np.argwhere(np.abs(signs) != 1)
        if len(wrong):
            row, column = wrong[0]
            raise UserError(
                f"{self.annotations} line {row + 3}: {names[column]} is {signs[row, column]:g}, not -1 or 1 "
                f"({len(wrong)} such values); correct the file"
            )
        images = find_images(self.images, image_size)
        at = match_rows(rows, images, self.annotations)
        matched = set(at.values())
        refuse_missing(
            [name for row, name in enumerate(rows) if row not in matched],
            f"rows of {self.annotations} have no image in {self.images}; add it or drop the row",
        )
        refuse_missing(
            [i for i in images if i not in at],
            f"images of {self.images} have no row in {self.annotations}; add one or move the image elsewhere",
        )
        ids = list(at)
        kept = [_column(self.annotations, names, a) for a in (names if self.attributes is None else self.attributes)]
        schema, values = self._read_measures(ids)
        labels = torch.from_numpy(np.concatenate([(signs[:, kept] > 0).astype(np.float32), values], axis=1))
        return AnnotatedImages(
            ids,
            labels,
            AttributeSchema((*(Attribute(names[i]) for i in kept), *schema)),
            self._read_splits(ids),
            paths=[images[i] for i in ids],
        )

    def _read_measures(self, ids: list[str]) -> tuple[list[Attribute], NDArray[np.float32]]:
        header: list[str] = []
        numbers = [np.empty((len(ids), 0), np.float32)]
        for file in self.measure_files:
            columns, rows, values = read_table(file)
            at = match_rows(rows, ids, file)
            refuse_missing([i for i in ids if i not in at], f"images have no row in {file}; add it")
            header += columns
            refuse_alike(header, ", ".join(map(str, self.measure_files)))
            numbers.append(values[[at[i] for i in ids]])
        kept, schema = [], []
        for measure in self.measures:
            column = _column(", ".join(map(str, self.measure_files)), header, measure.name)
            if measure.kind != "continuous":
                raise UserError(f"measure {measure.name} must be continuous, with low and high, not {measure.kind}")
            kept.append(column)
            schema.append(replace(measure, name=header[column]))
        return schema, np.concatenate(numbers, axis=1)[:, kept]

    def _read_splits(self, ids: list[str]) -> list[str] | None:
        if self.partition is None:
            return None
        return read_splits(self.partition, read_mapping(self.mapping, ids) if self.mapping else ids)


def _column(where: str | Path, names: Sequence[str], name: str) -> int:
    try:
        return AttributeSchema(tuple(Attribute(n) for n in names)).index(name)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
