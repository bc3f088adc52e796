"""Latents drawn from a generator."""

from typing import Any

from lcg_lightning.attributes import AttributeSchema
from lcg_lightning.data.annotated import DataSource
from lcg_lightning.errors import UserError
from lcg_lightning.formats.descriptions import plain_spec
from lcg_lightning.judges.attribute import AttributeJudge
from lcg_lightning.judges.load import load_attribute_judge

MOST = 10_000_000
"""Largest number of rows in a data set; they are kept in memory."""


class Sampled(DataSource):
    """Latents from the generator's own distribution; an attribute network labels their images.

    StyleFlow and LACE made their data this way.

    Args:
        n: rows to draw.
        attributes: the attribute network: zoo name, YAML file, or its content (see configs/judges).
        keep: the attributes to keep, in this order; all of them by default.
        seed: seed of the draws; row i depends only on the seed and i.
    """

    def __init__(
        self,
        n: int,
        attributes: str | dict[str, Any],
        keep: list[str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(n=n, attributes=plain_spec(attributes), keep=keep, seed=seed)
        if not 1 <= n <= MOST:
            raise UserError(f"Sampled: n is {n}; draw from 1 to {MOST}")
        self.n, self.attributes, self.keep, self.seed = n, attributes, keep, seed

    def judge(self) -> AttributeJudge:
        """The attribute network, restricted to the attributes to keep."""
        judge = load_attribute_judge(self.attributes)
        if self.keep is None:
            return judge
        return judge.select(AttributeSchema(tuple(judge.schema[name] for name in self.keep)))
