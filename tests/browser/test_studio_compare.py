"""The studio's Compare page as visitors use it."""

from tests.browser.audit import audit
from tests.browser.studio import choose, opened


def test_a_row_shows_its_samples_and_every_visitor_can_see_and_use_the_page(tab, studio):
    choose(opened(tab, studio), "Compare")
    with tab.inside(tab.one("#compare-board iframe")):
        tab.one("body:has(.open)")
        (name, *_) = tab.all(".open")
        name.click()
        samples = name.find_element("xpath", "ancestor::tbody").find_element("css selector", ".more img")
        loaded = "return arguments[0].complete && arguments[0].naturalWidth > 0"
        tab.until(lambda: samples.is_displayed() and tab.run(loaded, samples), "the samples of a row")
    assert audit(tab) == []
