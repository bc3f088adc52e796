"""The audit finds one of each fault on a page made of faults."""

from urllib.parse import quote

from tests.browser.audit import audit
from tests.browser.tab import complaints

PAGE = """<!doctype html><html><head><meta name="viewport" content="width=device-width"><style>
a { color: inherit } a:focus, .ring:focus { outline: 2px solid red }
@media (prefers-color-scheme: dark) { body { background: #222; color: white } .night { color: #555 } }
</style></head><body><h1>One</h1><h3>Three</h3><svg role="img"></svg>
<p style="color: #999">Pale</p><p style="opacity: .5">Halved</p><p class="night">Night</p><p id="a"></p><p id="a"></p>
<p style="color: #767676; background: white">Just enough</p>
<input aria-label="fine" style="outline: 0"><input class="ring"><img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">
<a href="#a" tabindex="2">Second</a><a href="#a" tabindex="1">First</a><a href="#a" tabindex="3">Third</a>
<button onfocus="this.blur()">Shy</button>
<button style="position: absolute; left: 1100px; top: 0">Far</button></body></html>"""


FAULTS = [
    "no lang",
    "no title",
    "id a twice",
    "no alt of data:image/gif",
    "a textbox without a name",
    "no label of <svg>",
    "heading 'Three' of level 3 after level 1",
    'dark: contrast 2.13 of "Night"',
    'light: contrast 2.85 of "Pale"',
    'light: contrast 3.98 of "Halved"',
    'Tab never reaches <button type=submit> "Shy"',
    'focus is not seen on <input type=text> "fine"',
    'Tab goes back to <a> "Second"',
    'Tab goes back to <input type=text> "fine"',
    'Tab goes back to <a> "First"',
    "px wide on a screen of 375",
    'out of the screen: <button type=submit> "Far"',
]


def test_each_fault_is_named(tab):
    tab.open(f"data:text/html,{quote(PAGE)}")
    found = audit(tab)
    assert [len([words for words in found if fault in words]) for fault in FAULTS] == [1] * len(FAULTS), found
    assert len(found) == len(FAULTS), found
    tab.open("data:text/html,<html lang=en><title>Bare</title><h1>Bare</h1>")
    assert "no viewport" in audit(tab)


def test_what_a_page_logs_and_asks_for_is_seen(tab, driver):
    tab.open("data:text/html,<script>throw Error('broken')</script><img src=http://elsewhere.invalid/x.png>")
    tab.until(lambda: tab.run("return document.images[0].complete"), "the picture is refused")
    found = complaints(driver)
    assert any("broken" in words for words in found)
    assert "asked for http://elsewhere.invalid/x.png" in found
