"""The leaderboard's page as a visitor uses it."""

import pytest
from PIL import Image

from lcg_lightning.cli import main
from tests.browser.audit import audit
from tests.browser.tab import complaints
from tests.evaluation.report import made


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    out = tmp_path_factory.mktemp("page")
    assert main(["leaderboard", str(made.board(tmp_path_factory.mktemp("board"))), f"--out={out}"]) == 0
    return (out / "leaderboard.html").as_uri()


def rows(tab):
    """Method and joint accuracy of the first task's rows that have one, as they stand."""
    cells = [tr.find_elements("css selector", "td") for tr in tab.all("section:first-of-type .board tr:not(.more)")[1:]]
    (i,) = [i for i, th in enumerate(tab.all("section:first-of-type .board th")) if "Joint accuracy" in th.text]
    return [(row[0].text, float(row[i].text.split()[0])) for row in cells]


def test_every_visitor_can_see_and_use_all_of_the_page(tab, address):
    tab.open(address)
    assert len(tab.all("img")) == 2 * 3 * 8
    assert tab.run("return [...document.images].every(image => image.complete && image.naturalWidth > 0)")
    for button in tab.all("summary, .open"):
        button.click()
    assert audit(tab) == []


def test_a_click_on_a_row_shows_its_samples(tab, tmp_path):
    folder = tmp_path / "a # b"
    made.run(folder / "lcg", made.figures(0))
    Image.new("RGB", (1254, 400), "teal").save(folder / "lcg/samples.png")
    assert main(["leaderboard", str(folder)]) == 0
    tab.open((folder / "leaderboard.html").as_uri())
    tab.all(".board tbody td")[1].click()
    image = tab.one(".more img")
    tab.until(lambda: image.is_displayed() and image.get_property("naturalWidth") == 1254, "the samples are shown")
    assert audit(tab) == []
    (folder / "lcg/samples.png").unlink()
    tab.open((folder / "leaderboard.html").as_uri())
    tab.all(".board tbody td")[1].click()
    tab.until(lambda: tab.all(".more p")[0].is_displayed() and not tab.one(".more img").is_displayed(), "no picture")
    complaints(tab.driver)  # of the missing file


def test_a_heading_sorts_its_table_and_no_other(tab, address):
    tab.open(address)
    found = rows(tab)
    others = [table.text for table in tab.all(".board")[1:]]
    joint, method = (
        next(button for button in tab.all(".board button") if name in button.text) for name in ("Joint", "Method")
    )
    joint.click()
    assert [value for _, value in rows(tab)] == sorted((value for _, value in found), reverse=True)
    joint.click()
    assert [value for _, value in rows(tab)] == sorted(value for _, value in found)
    assert tab.one("[aria-sort]").get_attribute("aria-sort") == "ascending"
    method.click()
    assert sorted(rows(tab)) == sorted(found)
    assert [table.text for table in tab.all(".board")[1:]] == others


def test_a_row_that_failed_stays_last(tab, address):
    tab.open(address)
    table = next(table for table in tab.all(".board") if "failed:" in table.text)
    for _ in range(2):
        next(button for button in table.find_elements("css selector", "button") if "Joint" in button.text).click()
        assert "failed:" in table.find_elements("css selector", "tbody")[-1].text


def test_the_keyboard_opens_a_row_and_sorts(tab, address):
    tab.open(address)

    def reach(words):
        def there():
            tab.press("TAB")
            return words in tab.focused().text

        tab.until(there, f"the focus on {words}")

    reach("Joint accuracy")
    tab.press("SPACE")
    assert tab.one("[aria-sort]").text.startswith("Joint accuracy")
    reach("lcg")
    name = tab.focused()
    for pressed, shown in (("ENTER", True), ("SPACE", False)):
        tab.press(pressed)
        command = name.find_element("xpath", "ancestor::tbody").find_element("css selector", "pre")
        assert command.is_displayed() == shown
        assert name.get_attribute("aria-expanded") == str(shown).lower()
