"""The command that decides whether a change may land."""

import subprocess

from tests.conftest import ROOT


def test_make_test_checks_style_and_types_before_it_runs_tests():
    assert (ROOT / ".ci/run").read_text().splitlines()[-1] == "make test"
    done = subprocess.run(["make", "--dry-run", "test"], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    steps = ["/ruff check .", "/ruff format --check .", "/mypy", "-m pytest --numprocesses auto --dist loadfile"]
    assert [step for line in lines for step in steps if line.endswith(step)] == steps
