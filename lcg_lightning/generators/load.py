"""Loads generators: from the zoo, from files, and from users' classes."""

from os.path import isfile
from pathlib import Path
from typing import Any

from lcg_lightning.errors import UserError
from lcg_lightning.files import require_file
from lcg_lightning.formats.descriptions import Spec, call, construct, read_spec
from lcg_lightning.generators.base import Generator
from lcg_lightning.generators.exact import ExactWorld, factor_encoder
from lcg_lightning.generators.files import loader_of
from lcg_lightning.kept import keeps
from lcg_lightning.zoo.shelf import WEIGHTS

EXACT = "synthfaces-exact"
"""Name of :class:`ExactWorld`, which is computed and so has no file."""
_SUFFIX = "-generator"


@keeps
def load_generator(source: Spec | Generator = "synthfaces", **options: Any) -> Generator:
    """Any generator, frozen.

    A file's content determines its kind: a stylegan2-ada-pytorch network pickle, a DiffAE checkpoint (autoencoder or
    latent), a safetensors file from ``lcg generator convert``, or a TorchScript, torch.export or ONNX program.

    Args:
        source: zoo name, generator file, or YAML file (or its content). YAML holds ``path`` and options, or the
            ``class_path`` and ``init_args`` of a subclass of :class:`Generator`. Relative paths start at the current
            directory.
        options: options of that kind of generator. StyleGAN2: space, truncation_psi, noise, class_index, encoder;
            DiffAE: steps, invert_steps; programs: latent_shape, output_range, normal, encoder, trusted;
            synthfaces-exact: curvature, image_size.

    Raises:
        UserError: the file, name or class does not exist; the file is damaged or of an unknown kind; or an option is
            unknown.
    """
    if isinstance(source, Generator):
        return source
    where, given = read_spec(source)
    if given is not None and "class_path" in given:
        return construct(Generator, {**given, **options}, where)
    if EXACT in (where, (given or {}).get("path")):
        own = {k: v for k, v in (given or {}).items() if k != "path"}
        return call(_exact_world, {**own, **options}, EXACT)
    path, own = find(source)
    return call(loader_of(path), {**own, **options, "path": path}, str(path))


def _exact_world(curvature: float = 0.3, image_size: int = 64) -> ExactWorld:
    """The exact world, with the zoo's encoder of faces where there is one."""
    file = _zoo_file("synthfaces")
    return ExactWorld(curvature, image_size, factor_encoder(file) if file.is_file() else None)


def in_zoo(source: Any) -> bool:
    """Whether this is the name of a zoo generator."""
    return isinstance(source, str) and not isfile(source) and isfile(_zoo_file(source))


def find(source: Spec) -> tuple[Path, dict[str, Any]]:
    """A generator's file, and the options given with it.

    Raises:
        UserError: the file or name does not exist, or the description has no path.
    """
    where, given = read_spec(source)
    options = given or {"path": where}
    name = options.pop("path", None)
    if not isinstance(name, str | Path):
        raise UserError(f"{where}: path is {name!r}; give the generator's file or zoo name")
    path = Path(name)
    if in_zoo(str(path)):
        path = _zoo_file(str(path))
    known = ", ".join(sorted(p.stem.removesuffix(_SUFFIX) for p in WEIGHTS.glob(f"*{_SUFFIX}.safetensors")))
    require_file(path, f"a generator's file, or the name of one in the zoo ({known})")
    return path, options


def _zoo_file(name: str) -> Path:
    return WEIGHTS / f"{name}{_SUFFIX}.safetensors"
