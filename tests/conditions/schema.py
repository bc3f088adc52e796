"""The attributes that the tests of conditions ask about."""

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.conditions import Is

SCHEMA = AttributeSchema(
    (
        Attribute("Smiling"),
        Attribute("Hair", "categorical", ("black", "blond", "gray")),
        Attribute("Hat"),
        Attribute("Yaw", "continuous", low=-40, high=40),
        Attribute("5_o_Clock_Shadow"),
    )
)
S, H, F = Is("Smiling"), Is("Hat"), Is("5_o_Clock_Shadow")
