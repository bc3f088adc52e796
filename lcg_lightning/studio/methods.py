"""The methods that a visitor can choose from: the command line's own, and what it is compared with."""

from typing import Any

from lcg_lightning.formats.descriptions import construct, described
from lcg_lightning.methods.arithmetic import LatentArithmetic
from lcg_lightning.methods.base import Method
from lcg_lightning.methods.lcg import LatentClassifierGuidance
from lcg_lightning.methods.regression import RegressionDirections
from lcg_lightning.methods.retrieval import Retrieval

PLAIN = "LCG, plain sequential"
_TITLES = {"lcg": "LCG", "cfg": "Classifier-free guidance", "styleflow": "StyleFlow", "lace": "LACE"}


def title(method: Method) -> str:
    """How a method is called in the studio."""
    return _TITLES.get(method.name, method.name.replace("-", " ").capitalize())


def others(main: Method) -> dict[str, Method]:
    """Every other method that the main one's prior and classifier suffice for, by title."""
    prior, classifier = main.config.get("prior"), main.config["classifier"]
    found: dict[str, Method] = {}
    if prior:
        both: dict[str, Any] = {"prior": prior, "classifier": classifier}
        plain: dict[str, Any] = {"anchor": "previous", "start": "source", "keep": False, "scale": 2.0, "tau": 1.2}
        found["LCG"] = LatentClassifierGuidance(**both)
        found[PLAIN] = LatentClassifierGuidance(**both, **plain)
    found["Regression, one move"] = RegressionDirections(classifier)
    found["Regression, three moves"] = RegressionDirections(classifier, moves=3, keep=True)
    found["Latent arithmetic"] = LatentArithmetic()
    found["Conditional arithmetic"] = LatentArithmetic(conditional=True)
    found["Nearest training face"] = Retrieval()
    found.pop(title(main), None)
    return found


def remade(method: Method, **changes: Any) -> Method:
    """The same method with other arguments; it is not prepared yet.

    Raises:
        UserError: an argument that the method refuses.
    """
    if not changes:
        return method
    description = described(method)
    given = {**description["init_args"], **changes}
    return construct(Method, {**description, "init_args": given}, method.name)


def takes(method: Method, argument: str) -> bool:
    """Whether a method has an argument of that name."""
    return argument in method.config


def can_edit(method: Method) -> bool:
    """Whether a method edits at all; some only sample."""
    return type(method).edit is not Method.edit
