"""Takes the pictures of docs/studio.md: ``python docs/screenshots.py URL``, while ``lcg studio`` runs there."""

import io
import shutil
import sys
import time
from pathlib import Path

from PIL import Image
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

OUT = Path(__file__).parent / "figures"


def click(driver: Chrome, xpath: str, shows: str) -> None:
    """Clicks an element, and waits for what it shows."""
    driver.find_element(By.XPATH, xpath).click()
    WebDriverWait(driver, 120).until(lambda _: driver.find_elements(By.CSS_SELECTOR, shows))


def save(driver: Chrome, name: str) -> None:
    time.sleep(2)  # until nothing moves
    Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB").save(OUT / name, quality=85, method=6)


if __name__ == "__main__":
    options = ChromeOptions()
    for argument in ("--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1200,1200"):
        options.add_argument(argument)
    with Chrome(options, ChromeService(shutil.which("chromedriver"))) as driver:
        driver.implicitly_wait(120)
        driver.get(sys.argv[1])
        driver.find_element(By.CSS_SELECTOR, "#edit-result img")
        click(driver, "//label[normalize-space()='Hat']", shows="#edit-strip img")
        save(driver, "studio-edit.webp")
        click(driver, "//button[@role='tab'][normalize-space()='Compose']", shows="#compose-go")
        click(driver, "//*[@id='compose-go']", shows="#compose-grid img")
        save(driver, "studio-compose.webp")
