"""Reads YAML files; refuses those that give a key twice, or take far more time to use than their size suggests."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from lcg_lightning.errors import UserError
from lcg_lightning.files import read_text

MAX_NODES = 100_000
"""Largest number of values in a YAML file with its aliases expanded."""
MAX_DEPTH = 30
"""Deepest nesting of lists and mappings."""


def load_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        UserError: the file cannot be read or is not YAML, or what :func:`refuse_traps` refuses.
    """
    text = read_text(path)
    try:
        refuse_traps(text)
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path}{line}: not YAML ({error.problem}); correct it") from error
    except (yaml.YAMLError, ValueError) as error:  # an impossible date is a ValueError
        raise UserError(f"{path} cannot be used ({' '.join(str(error).split())}); correct it") from error


@lru_cache  # jsonargparse reads many a value again and again
def refuse_traps(text: str) -> None:
    """Checks that a YAML text gives no key twice, is not nested too deeply and stays small with its aliases expanded.

    Raises:
        yaml.YAMLError: a mapping has a key twice, of which YAML readers would silently take the last; or the text is
            too deep, too large or not YAML.
    """
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise yaml.YAMLError(f"it is nested more than {MAX_DEPTH} levels deep")
    _count(yaml.compose(text, Loader=yaml.SafeLoader), {})


def _count(node: yaml.Node | None, counts: dict[int, int]) -> int:
    """Number of nodes in a tree with its aliases expanded."""
    if node is None or isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in counts:
        if isinstance(node, yaml.MappingNode):
            _refuse_twice([key for key, _ in node.value])
        counts[id(node)] = MAX_NODES  # placeholder, so that a node that contains itself counts as too many
        parts = [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
        counts[id(node)] = 1 + sum(_count(part, counts) for part in parts)
    if counts[id(node)] > MAX_NODES:
        raise yaml.YAMLError(f"its aliases stand for more than {MAX_NODES} values")
    return counts[id(node)]


def _refuse_twice(keys: list[yaml.Node]) -> None:
    seen = set[tuple[str, str]]()
    for key in keys:
        if isinstance(key, yaml.ScalarNode):
            if (key.tag, key.value) in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value} is given twice", problem_mark=key.start_mark)
            seen.add((key.tag, key.value))
