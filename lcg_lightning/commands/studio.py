"""``lcg studio``: edits, samples and comparisons in the browser."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console

from lcg_lightning.commands import methods  # noqa: F401 - the classes that --method can name
from lcg_lightning.devices import refuse_missing
from lcg_lightning.errors import UserError
from lcg_lightning.methods import DEFAULT_METHOD
from lcg_lightning.methods.base import Method

DEMO = Path("runs/demo")
DEMO_METHOD: dict[str, Any] = {
    **DEFAULT_METHOD,
    "init_args": {"prior": str(DEMO / "prior/last.ckpt"), "classifier": str(DEMO / "classifier/last.ckpt")},
}


def studio(
    store: Path = DEMO / "store",
    method: Method = DEMO_METHOD,  # type: ignore[assignment] # the parser instantiates it
    generator: str | dict[str, Any] = "synthfaces",
    records: Path = DEMO,
    device: str = "cpu",
    host: str = "127.0.0.1",
    port: int = 7860,
    open: bool = True,
) -> None:
    """Edit faces, sample conditions and compare methods in the browser.

    Without options it shows what `make demo` left in runs/demo.

    Args:
        store: latent store that the method was trained on.
        method: class of a method, or a YAML file with its class_path and init_args; LatentClassifierGuidance with the
            demo's networks by default. Its arguments follow as --method.prior FILE, --method.classifier FILE;
            --method.help CLASS lists them.
        generator: zoo name, generator file, YAML file (path and options, or class_path and init_args), or the content
            of one.
        records: folder with the records that the page Compare shows.
        device: device to compute on, such as cpu or cuda.
        host: address to listen at; the default serves this machine alone, 0.0.0.0 whoever can reach it.
        port: port to listen at; 0 takes a free one.
        open: open the page in the browser.
    """
    if find_spec("gradio") is None:
        raise UserError("lcg studio: Gradio, which draws its pages, is missing; pip install 'lcg-lightning[studio]'")
    if store == DEMO / "store" and not store.exists():
        raise UserError(f"lcg studio: {DEMO} is not there; run `make studio`, or give --store and the rest")
    refuse_missing(device)
    from lcg_lightning.studio.address import find_port
    from lcg_lightning.studio.app import serve
    from lcg_lightning.studio.resources import load_resources

    find_port(host, port)
    console = Console(highlight=False)
    resources = load_resources(store, method, generator, device, records, console.print)
    serve(resources, host, port, open)
