"""The command ``lcg studio``: what it refuses before it loads anything."""

import socket
from pathlib import Path

import pytest

from lcg_lightning.cli import main
from lcg_lightning.errors import UserError
from lcg_lightning.studio.address import find_port

_ADDRESSES = Path("/proc/net/if_inet6")
IPV6 = pytest.mark.skipif(not (_ADDRESSES.exists() and _ADDRESSES.read_text()), reason="needs IPv6")


def test_without_gradio_the_line_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr("lcg_lightning.commands.studio.find_spec", lambda name: None)
    assert main(["studio"]) == 2
    assert capsys.readouterr().err.endswith("pip install 'lcg-lightning[studio]'\n")


def test_without_the_demo_the_line_says_how_to_make_it(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["studio"]) == 2
    assert "runs/demo is not there; run `make studio`" in capsys.readouterr().err


def test_a_method_without_a_classifier_is_refused_before_anything_is_loaded(tmp_path, capsys):
    argv = ["studio", f"--store={tmp_path / 'nowhere'}", "--method=LatentArithmetic", "--port=0", "--open=false"]
    assert main(argv) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert "method arithmetic has no classifier" in error


@pytest.mark.parametrize(
    ("host", "place", "advice"),
    [
        ("127.0.0.1", "127.0.0.1", "another --port"),
        pytest.param("::1", "127.0.0.1", "another --port", marks=IPV6),  # Gradio refuses a port that is used there
        ("no.such.host.invalid", "no.such.host.invalid", "a --host of this machine"),
        ("192.0.2.1", "192.0.2.1", "a --host of this machine"),
        ("2001:db8::1", "[2001:db8::1]", "a --host of this machine"),
    ],
)
def test_a_port_in_use_and_another_machines_address_are_refused_in_one_line(tmp_path, capsys, host, place, advice):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        given = {"store": tmp_path, "method.prior": tmp_path, "method.classifier": tmp_path}
        argv = [f"--{name}={value}" for name, value in given.items()]
        assert main(["studio", *argv, f"--host={host}", f"--port={port}", "--open=false"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"cannot listen at {place}:{port}" in line
    assert line.endswith(f"; give {advice}") or line.endswith(f"; give {advice}, such as 127.0.0.1")


def test_port_0_is_a_free_one_and_a_port_that_cannot_be_is_refused():
    port = find_port("127.0.0.1", 0)
    assert find_port("127.0.0.1", port) == port > 0
    with pytest.raises(UserError, match="no port 65536; give a --port from 0 to 65535"):
        find_port("127.0.0.1", 65536)


@IPV6
def test_an_ipv6_address_of_this_machine_will_do():
    assert find_port("::1", 0) > 0
