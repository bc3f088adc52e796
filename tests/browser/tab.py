"""Chromium's tabs, driven by Selenium, which is imported only where a test drives one: it may be missing."""

import json
import shutil
from contextlib import contextmanager
from urllib.parse import urlsplit

ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)
WEB = ("http", "https", "ws", "wss")
DESKTOP, PHONE = (1280, 900), (375, 812)
PATIENCE = 60
"""Seconds until something that a page must show has failed to come."""


def start(profile, downloads):
    """Chromium with an empty profile; files go to ``downloads``."""
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in (*ARGUMENTS, f"--user-data-dir={profile}", f"--window-size={DESKTOP[0]},{DESKTOP[1]}"):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return Chrome(options, ChromeService(shutil.which("chromedriver")))


def close_all(driver):
    """Leaves one empty tab."""
    old = driver.window_handles
    driver.switch_to.new_window("tab")
    new = driver.current_window_handle
    for handle in old:
        driver.switch_to.window(handle)
        driver.close()
    driver.switch_to.window(new)


def complaints(driver):
    """Errors that pages logged, and addresses outside of this machine that they asked for, since the last call."""
    errors = [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = [
        event["params"].get("request", event["params"])["url"]
        for event in events
        if event["method"] in ("Network.requestWillBeSent", "Network.webSocketCreated")
    ]
    away = [url for url in asked if urlsplit(url).scheme in WEB and urlsplit(url).hostname != "127.0.0.1"]
    return [*errors, *(f"asked for {url}" for url in away)]


class Tab:
    """One tab, which is in front whenever it is used."""

    def __init__(self, driver):
        self.driver, self.handle = driver, driver.current_window_handle

    def new(self):
        """Another tab of the same browser."""
        self.driver.switch_to.new_window("tab")
        return Tab(self.driver)

    def _front(self):
        if self.driver.current_window_handle != self.handle:
            self.driver.switch_to.window(self.handle)
        return self.driver

    def open(self, url):
        self._front().get(url)

    def all(self, css):
        return self._front().find_elements("css selector", css)

    def one(self, css):
        """The only element that is ``css``, once it is there."""
        (found,) = self.until(lambda: self.all(css), f"{css} is there")
        return found

    def run(self, script, *arguments):
        return self._front().execute_script(script, *arguments)

    @contextmanager
    def inside(self, frame):
        """The tab's methods look into a frame."""
        self._front().switch_to.frame(frame)
        yield
        self._front().switch_to.default_content()

    def cdp(self, command, **parameters):
        return self._front().execute_cdp_cmd(command, parameters)

    def until(self, check, what):
        """Waits until ``check()`` is true; returns what it returned."""
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.wait import WebDriverWait

        wait = WebDriverWait(self._front(), PATIENCE, 0.05, [StaleElementReferenceException])
        return wait.until(lambda _: check(), f"never: {what}")

    def press(self, *keys):
        """Presses keys, one after the other, on what has the focus; special ones by name, such as ``ENTER``."""
        from selenium.webdriver import ActionChains, Keys

        keys = [getattr(Keys, key) if len(key) > 1 else key for key in keys]
        ActionChains(self._front(), duration=0).send_keys(*keys).perform()

    def focused(self):
        return self._front().switch_to.active_element

    def resize(self, width, height):
        """Shows the page at that size in CSS pixels, as a phone's where that is narrow."""
        phone = width < 500
        self.cdp(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1 + phone, mobile=phone
        )

    def colors(self, scheme):
        """Asks the page for a ``light`` or a ``dark`` scheme."""
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, path):
        self._front().save_screenshot(str(path))
