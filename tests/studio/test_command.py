"""The command ``lcg studio``: what it refuses before it loads anything."""

import socket

import pytest

from lcg_lightning.cli import main


def test_without_gradio_the_line_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr("lcg_lightning.commands.studio.find_spec", lambda name: None)
    assert main(["studio"]) == 2
    assert capsys.readouterr().err.endswith("pip install 'lcg-lightning[studio]'\n")


def test_without_the_demo_the_line_says_how_to_make_it(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["studio"]) == 2
    assert "runs/demo is not there; run `make studio`" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["127.0.0.1", "no.such.host.invalid"])
def test_a_port_in_use_and_another_machines_address_are_refused_in_one_line(world, capsys, host):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        given = {"store": world.store, "method.prior": world.prior, "method.classifier": world.classifier}
        argv = [f"--{name}={value}" for name, value in given.items()]
        assert main(["studio", *argv, f"--host={host}", f"--port={port}", "--open=false"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"cannot listen at {host}:{port}" in line
