"""Loads the judging networks of an evaluation."""

from pathlib import Path
from typing import Any

from lcg_lightning.errors import UserError
from lcg_lightning.evaluation.inception import load_inception
from lcg_lightning.evaluation.judged import FeatureExtractor
from lcg_lightning.judges.attribute import AttributeJudge
from lcg_lightning.judges.identity import IdentityNetwork
from lcg_lightning.judges.load import load_attribute_judge, load_identity_network, refuse_size


def load_features(choice: str, identity: IdentityNetwork | None) -> FeatureExtractor | None:
    """The features that a Fréchet distance compares.

    Args:
        choice: ``identity``, ``inception``, the path of Inception's weights, or ``none``.
        identity: the identity network, if there is one.

    Raises:
        UserError: there is no identity network, the file is not Inception's, or the download failed.
    """
    if choice == "none":
        return None
    if choice == "identity":
        if identity is None:
            raise UserError(
                "evaluation: no identity network to take features from; set features: inception, or none for no FID"
            )
        return identity
    return load_inception(download=True) if choice == "inception" else load_inception(Path(choice))


def load_networks(judge: Any, identity: Any, image_size: int) -> tuple[AttributeJudge | None, IdentityNetwork | None]:
    """Loads the attribute judge and the identity network from their descriptions; None for one not given.

    Raises:
        UserError: a description names no network, or one for images of another size.
    """
    attributes = None if judge is None else load_attribute_judge(judge)
    who = None if identity is None else load_identity_network(identity)
    for network in (attributes, who):
        if network is not None:
            refuse_size(network, image_size)
    return attributes, who
