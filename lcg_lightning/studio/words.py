"""A result in words: the call of ``lcg``, and the lines of Python, that give the same pictures bit for bit."""

import inspect
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, get_type_hints

from lcg_lightning.errors import UserError
from lcg_lightning.files import plain
from lcg_lightning.methods import DEFAULT_METHOD
from lcg_lightning.methods.base import Method
from lcg_lightning.studio.resources import SPLIT, Resources
from lcg_lightning.studio.sources import Drawn, Row, Uploaded

UPLOAD = "upload.png"
"""The file that the words of an uploaded picture name: the picture as the generator took it."""
_USUAL = {"split": "test", "n": 16, "seed": 0, "batch_size": 64, "generator": "synthfaces", "device": "cpu"}
_FOLDERS = {"edit": "edit", "sample": "samples"}
_MISSING = object()


class Asked(NamedTuple):
    """Samples that were asked for."""

    condition: str
    n: int
    seed: int
    batch_size: int
    """How many are made at a time; in batches of another size, floating point rounds differently."""


def edit_command(resources: Resources, method: Method, texts: Sequence[str], origin: Row | Drawn | Uploaded) -> str:
    """The call of ``lcg edit``; its last picture is ``images/00000-K.png`` after K conditions."""
    match origin:
        case Row(number):
            options = {"rows": [number], **_unusual({"split": SPLIT})}
        case Drawn(_, by_prior=True):
            return "# lcg edit draws faces from a generator alone; the lines of Python draw this one from the prior"
        case Drawn(seed):
            options = {"sample_seed": seed, "n": 1}
        case Uploaded():
            options = {"images": UPLOAD}
    conditions = texts[0] if len(texts) == 1 else _word(list(texts))
    return _command("edit", conditions, resources, method, options)


def sample_command(resources: Resources, method: Method, asked: Asked) -> str:
    """The call of ``lcg sample``."""
    condition, *_ = asked
    numbers = {"n": asked.n, "seed": asked.seed, "batch_size": asked.batch_size}
    return _command("sample", condition, resources, method, _unusual(numbers))


def edit_python(resources: Resources, method: Method, texts: Sequence[str], origin: Row | Drawn | Uploaded) -> str:
    """The lines of Python that write the last picture as ``images/00000.png``, and its latents."""
    to, back = _moves(resources)
    imports = ["conditions import merge, parse", "methods.base import Edit"]
    index, seed, before = 0, 0, []
    match origin:
        case Row(index):
            latents = f"store.split({_quoted(SPLIT)}).latents[index]{to}"
        case Drawn(seed, by_prior=True):
            imports += ["diffusion.noise import SampleNoise", "methods.unguided import Unguided"]
            prior = f"prior = Unguided({_path(resources.main.config['prior'])})"
            before = [prior, "prior.prepare(store, space)", f"prior{to}.eval()"]
            latents = f"space.unstandardize(prior.draw(SampleNoise({seed}, index, {_width(resources)})))"
        case Drawn(seed):
            latents = f"generator.latents_of({seed}, index){to}"
        case Uploaded():
            imports.append("data.images import ImageFiles")
            before = [f"image = ImageFiles([{_path(UPLOAD)}], generator.image_size)[0][None]{to}"]
            latents = "generator.encode(image)"
    inverted = isinstance(origin, Uploaded) and origin.inverted
    noise = "generator.invert(image, w)" if inverted else f"generator.noise_of({seed}, index, w)"
    return _lines(
        *_opening(resources, method, imports, "edit"),
        f"conditions = [parse(text, store.schema) for text in {_literal(list(texts))}]",
        "edits = [Edit(each, merge(conditions[: k + 1])) for k, each in enumerate(conditions)]",
        f"index = torch.tensor([{index}])",
        *before,
        "with faster_products(), torch.inference_mode():  # rounds as the command does",
        f"    w = {latents}",
        "    z = method.edit(space.standardize(w), edits)[-1]",
        f"    picture = space.decode(z, {noise}){back}",
        "write_images(out, picture, 0)",
        f"write_latents(out, space.unstandardize(z){back})",
    )


def sample_python(resources: Resources, method: Method, asked: Asked) -> str:
    """The lines of Python that write the pictures as ``images/00000.png`` and so on, and their latents."""
    condition, n, seed, batch_size = asked
    back = _moves(resources)[1]
    return _lines(
        *_opening(resources, method, ["conditions import parse", "diffusion.noise import SampleNoise"], "samples"),
        f"condition = parse({_quoted(condition)}, store.schema)",
        "latents = []",
        "with faster_products(), torch.inference_mode():  # rounds as the command does",
        f"    for index in torch.arange({n}).split({batch_size}):",
        f"        z = method.generate(condition, SampleNoise({seed}, index, {_width(resources)}))",
        f"        pictures = space.decode_samples(z, {seed}, index){back}",
        "        write_images(out, pictures, int(index[0]))",
        f"        latents.append(space.unstandardize(z){back})",
        "write_latents(out, torch.cat(latents))",
    )


def _command(name: str, asked: str, resources: Resources, method: Method, options: Mapping[str, Any]) -> str:
    path = f"{type(method).__module__}.{type(method).__qualname__}"
    store = str(resources.store.path)
    every = {
        **({} if path == DEFAULT_METHOD["class_path"] else {"method": path}),
        **{f"method.{key}": value for key, value in _arguments(method).items()},
        **options,
        **_unusual({"generator": resources.generator_spec, "device": resources.device}),
    }
    first = shlex.join(["lcg", name, asked, f"./{store}" if store.startswith("-") else store, _FOLDERS[name]])
    return " \\\n    ".join([first, *(f"--{key} {shlex.quote(_word(value))}" for key, value in every.items())])


def _word(value: Any) -> str:
    """A value as the command line reads it."""
    value = plain(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _unusual(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value != _USUAL[key]}


def _arguments(method: Method) -> dict[str, Any]:
    """A method's arguments, without those that it has unless told otherwise."""
    parameters = inspect.signature(type(method)).parameters.values()
    needed = [each.name for each in parameters if each.default is each.empty and each.name in method.config]
    usual: dict[str, Any] = {}
    with suppress(UserError):  # of a method that the needed ones do not suffice for, every argument is said
        usual = type(method)(**{name: method.config[name] for name in needed}).config
    return {key: value for key, value in method.config.items() if key in needed or value != usual.get(key, _MISSING)}


def _opening(resources: Resources, method: Method, imports: Sequence[str], out: str) -> Iterator[str]:
    """Imports, and everything that does not depend on what is asked."""
    kind = type(method)
    to = _moves(resources)[0]
    every = [
        "commands.output import write_images, write_latents",
        "commands.products import faster_products",
        "data.store import LatentStore",
        "generators.load import load_generator",
    ]
    ours = [*(f"lcg_lightning.{each}" for each in [*imports, *every]), f"{kind.__module__} import {kind.__qualname__}"]
    hints = get_type_hints(kind.__init__)
    yield from ["from pathlib import Path", "", "import torch", "", *(f"from {each}" for each in sorted(ours)), ""]
    yield f"generator = load_generator({_literal(plain(resources.generator_spec))}){to}"
    yield f"store = LatentStore.open({_quoted(str(resources.store.path))}, generator)"
    yield "space = store.space(generator)"
    given = [f"    {key}={_argument(value, hints.get(key))}," for key, value in _arguments(method).items()]
    yield from [f"method = {kind.__qualname__}(", *given, ")"] if given else [f"method = {kind.__qualname__}()"]
    yield from ["method.prepare(store, space)", f"method{to}.eval()", f"out = {_path(out)}", "out.mkdir()", ""]


def _lines(*lines: str) -> str:
    return "\n".join(lines) + "\n"


def _moves(resources: Resources) -> tuple[str, str]:
    """What moves a tensor or network to the studio's device, and a tensor back; nothing on a CPU."""
    return ("", "") if resources.device == "cpu" else (f".to({_quoted(resources.device)})", ".cpu()")


def _width(resources: Resources) -> str:
    """The last arguments of ``SampleNoise``."""
    return "space.dim" if resources.device == "cpu" else f"space.dim, {_quoted(resources.device)}"


def _argument(value: Any, hint: Any) -> str:
    """An argument in Python; a configuration has kept paths as text."""
    if "Path" not in str(hint):
        return _literal(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_literal(key)}: {_argument(each, hint)}" for key, each in value.items()) + "}"
    return _path(value) if isinstance(value, str) else _literal(value)


def _path(path: str) -> str:
    return f"Path({_quoted(path)})"


def _literal(value: Any) -> str:
    """A plain value in Python."""
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    return _quoted(value) if isinstance(value, str) else repr(value)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
