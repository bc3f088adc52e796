"""A page in headless Chromium, whose console and requests are watched."""

import importlib.util
import shutil

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
