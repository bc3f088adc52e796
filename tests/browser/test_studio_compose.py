"""The studio's Compose page as visitors use it."""

import pytest

from tests.browser.audit import audit
from tests.browser.studio import choose, opened, pictures
from tests.browser.tab import DESKTOP, PHONE


@pytest.fixture
def page(tab, studio):
    choose(opened(tab, studio), "Compose")
    return tab


def typed(page, text, *words):
    """Types a condition anew; waits for what the page says of it."""
    field = page.one("#compose-text textarea")
    page.run("arguments[0].focus(); arguments[0].select()", field)
    page.press(*text)
    page.until(lambda: all(each in page.one("#compose-verdict").text for each in words), f"the words {words}")


def test_a_wrong_condition_is_told_its_column_as_it_is_typed(page):
    typed(page, "Smiling & Hatt", "Column 11", "Hat")
    assert page.one("#compose-verdict mark").text == "Hatt"
    typed(page, "Smiling & Hat", "Reads as", "Smiling & Hat")
    assert not page.all("#compose-verdict mark")
    field = page.one("#compose-text textarea")
    page.run("arguments[0].value = '('.repeat(10000); arguments[0].dispatchEvent(new Event('input'))", field)
    page.until(lambda: "10,000 characters" in page.one("#compose-verdict").text, "the length that is refused")


def test_samples_appear_and_every_visitor_can_see_and_use_the_page(page):
    typed(page, "Smiling & Age=60", "Reads as")
    page.one("#compose-go").click()
    page.until(lambda: len(page.all("#compose-grid a[download]")) == 2, "samples to download")
    found = pictures(page, "#compose-grid")
    assert len(set(found)) == len(found) == 16
    assert audit(page) == []


def test_on_a_phone_samples_come_into_sight(page):
    page.resize(*PHONE)
    page.one("#compose-go").click()
    page.until(
        lambda: page.run("return document.querySelector('#compose-results').getBoundingClientRect().top < 100"),
        "results at the top of the screen",
    )
    page.resize(*DESKTOP)
