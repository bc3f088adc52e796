import re
import shlex

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from lcg_lightning.cli import main
from lcg_lightning.studio.compare import board, route
from tests.evaluation.report import made


@pytest.fixture
def records(tmp_path):
    made.run(tmp_path / "a records/lcg", made.figures(0))
    (tmp_path / "a records/lcg/samples.png").write_bytes(b"picture")
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "a records/link.png").symlink_to(tmp_path / "secret.png")
    return tmp_path / "a records"


def test_the_page_says_what_is_missing_until_it_shows_the_leaderboard(records, tmp_path):
    for none in (None, tmp_path / "nowhere", tmp_path / "a records/link.png"):
        assert "There are no records" in board(none)
        assert "lcg test" in board(none)
    (tmp_path / "half/lcg").mkdir(parents=True)
    (tmp_path / "half/lcg/record.json").write_text('{"format":')
    assert "There are no records" in board(tmp_path / "half")
    said = board(records)
    assert "There are records" in said
    command = re.search("<pre>(.*)</pre>", said)[1].replace("&#x27;", "'")
    assert main(shlex.split(command)[1:]) == 0
    assert '<iframe id="leaderboard" title="Leaderboard" src="records/leaderboard.html">' in board(records)


def test_the_page_and_pictures_are_served_and_nothing_else(records):
    assert main(["leaderboard", str(records)]) == 0
    client = TestClient(Starlette(routes=[route(records)]))
    page = client.get("/records/leaderboard.html")
    assert page.status_code == 200
    assert page.text == (records / "leaderboard.html").read_text()
    assert "sandbox" in page.headers["Content-Security-Policy"]
    (address,) = re.findall(r'<img [^>]*src="([^d][^"]*)"', page.text)
    assert client.get(f"/records/{address}").content == b"picture"
    for path in (
        "lcg/record.json",
        "link.png",
        "..%2Fsecret.png",
        "%2e%2e/secret.png",
        "lcg",
        "leaderboard.json",
        "",
        "%00.png",
        f"{'a' * 300}.png",
    ):
        assert client.get(f"/records/{path}").status_code == 404
    assert TestClient(Starlette(routes=[route(None)])).get("/records/leaderboard.html").status_code == 404
