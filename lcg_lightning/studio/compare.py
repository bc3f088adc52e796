"""The Compare page's work: serves the leaderboard and the records' pictures, and says what is missing."""

from contextlib import suppress
from html import escape
from pathlib import Path
from shlex import quote

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from lcg_lightning.errors import UserError
from lcg_lightning.evaluation.records import is_record
from lcg_lightning.files import load_json

PAGE = "leaderboard.html"
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "sandbox allow-scripts allow-popups",  # it cannot reach the studio's own page
}


def route(records: Path | None) -> Route:
    """The address records/..., at which the page and PNG files below a folder are served, and nothing else."""

    def serve(request: Request) -> Response:
        path = Path(request.path_params["path"])
        if records is not None and (path == Path(PAGE) or path.suffix == ".png"):
            with suppress(OSError, ValueError):  # a name too long, or none that a file can have
                file = (records / path).resolve()
                if file.is_relative_to(records.resolve()) and file.is_file():
                    return FileResponse(file, headers=_HEADERS)
        return PlainTextResponse("not found", 404)

    return Route("/records/{path:path}", serve)


def board(records: Path | None) -> str:
    """HTML of the leaderboard in a frame, or of how to make one."""
    if records is not None and (records / PAGE).is_file():
        return f'<iframe id="leaderboard" title="Leaderboard" src="records/{PAGE}"></iframe>'
    folder = Path("runs/records") if records is None else records
    write = f"lcg leaderboard {quote(str(folder))}"
    if _has_records(folder):
        return _guide(f"There are records in {folder}, and no leaderboard of them yet. Write it:", [write])
    evaluate = "lcg test --config configs/evaluation/base.yaml --config configs/evaluation/lcg.yaml"
    asked = f"--config benchmarks/tasks/conditional-3.yaml --model.init_args.out {quote(str(folder / 'lcg'))}"
    return _guide(
        f"There are no records in {folder}. Evaluate a method on a task, and others like it, then write the "
        "leaderboard (make demo does all of that):",
        [f"{evaluate} \\\n    {asked}", write],
    )


def _guide(text: str, commands: list[str]) -> str:
    return f"<p>{escape(text)}</p><pre>{escape(chr(10).join(commands))}</pre><p>Then click Reload.</p>"


def _has_records(folder: Path) -> bool:
    for path in folder.glob("**/record.json"):
        with suppress(UserError):  # a damaged one is none
            if is_record(load_json(path)):
                return True
    return False
