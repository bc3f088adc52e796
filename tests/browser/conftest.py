"""A page in headless Chromium, whose console and requests are watched."""

import importlib.util
import re
import shutil
import subprocess
import sys
import time

import pytest

from tests.browser.tab import Tab, close_all, complaints, start

MISSING = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
MISSING += [] if importlib.util.find_spec("selenium") else ["selenium"]


def pytest_runtest_setup():
    """Skips here rather than in a fixture: all tests then share one line of the summary."""
    if MISSING:
        pytest.skip(f"needs {' and '.join(MISSING)}")


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    """One Chromium for all tests: it begins with an empty profile and reaches nothing but this machine."""
    driver = start(tmp_path_factory.mktemp("profile"), tmp_path_factory.mktemp("downloads"))
    yield driver
    driver.quit()


@pytest.fixture
def tab(driver):
    """An empty tab; the test fails where its pages log an error or ask for anything that is not on this machine."""
    close_all(driver)
    complaints(driver)
    yield Tab(driver)
    assert complaints(driver) == []


@pytest.fixture(scope="session")
def studio(world, tmp_path_factory):
    """Address of ``lcg studio`` with the world's networks, a process of its own that must end without a traceback."""
    log = tmp_path_factory.mktemp("studio") / "log"
    options = [f"--store={world.store}", f"--records={world.root}", "--port=0", "--open=false"]
    networks = [f"--method.prior={world.prior}", f"--method.classifier={world.classifier}"]
    command = [sys.executable, "-m", "lcg_lightning", "studio", *options, *networks]
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT) as process:
        try:
            while not (address := re.search(r"studio is at (http://127.0.0.1:\d+)/ ;", log.read_text())):
                assert process.poll() is None, log.read_text()
                time.sleep(0.1)
            yield address[1]
        finally:
            process.terminate()
    assert "Traceback" not in log.read_text(), log.read_text()
