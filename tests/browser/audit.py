"""What a person who is short of sight, of a mouse or of screen would miss on a page, as Lighthouse would find it."""

from pathlib import Path

from tests.browser.tab import DESKTOP, PHONE

SCRIPT = Path(__file__).with_name("audit.js").read_text()
NAMED = {
    "button", "checkbox", "combobox", "link", "listbox", "menuitem", "radio", "searchbox", "slider",
    "spinbutton", "switch", "tab", "textbox", "treeitem",
}  # fmt: skip


def audit(tab):
    """Sentences about what is wrong with the page as it is now, none of them if it is fine.

    Looks at names of controls and pictures, order of headings, contrast of text in both color schemes, the document's
    language and title, the order of tabs and what shows the focus, and the width on a phone.
    """
    tab.run(SCRIPT)
    found = [*tab.run("return audit.document()"), *names(tab), *headings(tab)]
    for scheme in ("dark", "light"):
        tab.colors(scheme)
        found += [f"{scheme}: {words}" for words in tab.run("return audit.contrast()")]
    tab.press(*["TAB"] * (tab.run("return audit.watch()") + 3))
    found += tab.run("return audit.walked()")
    tab.resize(*PHONE)
    found += tab.run("return audit.wide()")
    tab.resize(*DESKTOP)
    return found


def tree(tab):
    """What a screen reader is told: role, name and properties of every node, in order."""
    for node in tab.cdp("Accessibility.getFullAXTree")["nodes"]:
        if not node["ignored"]:
            properties = {each["name"]: each["value"].get("value") for each in node["properties"]}
            yield node["role"]["value"], node.get("name", {}).get("value", "").strip(), properties


def names(tab):
    return [
        f"a {role} without a name: {properties}" for role, name, properties in tree(tab) if role in NAMED and not name
    ]


def headings(tab):
    found = [(properties["level"], name) for role, name, properties in tree(tab) if role == "heading"]
    levels = [0, *(level for level, _ in found)]
    words = [] if levels.count(1) == 1 else [f"{levels.count(1)} headings of level 1"]
    return words + [
        f"heading {name!r} of level {level} after level {last}"
        for last, (level, name) in zip(levels, found, strict=False)
        if level > last + 1
    ]
