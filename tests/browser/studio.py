"""The studio's pages, as tests read and move them."""


def opened(tab, address):
    """The tab with the studio's first face."""
    tab.open(address)
    tab.until(lambda: len(pictures(tab, "#edit-result")) == 1, "the first face")
    return tab


def pictures(tab, css):
    """Sources of the pictures in an element, which hold their bytes."""
    return tab.run("return [...document.querySelectorAll(arguments[0] + ' img')].map(image => image.src)", css)


def edits(tab):
    """What the strip says below the faces after the source."""
    captions = "return [...document.querySelectorAll('#edit-strip figcaption')].map(each => each.textContent)"
    return tab.run(captions)[1:]


def edited(tab, *texts):
    """The result's picture, once the strip shows these edits."""
    tab.until(lambda: edits(tab) == list(texts), f"the edits {texts}")
    return pictures(tab, "#edit-result")[-1]


def slide(tab, *keys):
    """Presses keys on the slider of the age; returns where it then stands."""
    tab.run("document.querySelector('#edit-Age input[type=range]').focus()")
    tab.press(*keys)
    return tab.run("return document.activeElement.value")


def notice(tab, page, words):
    """Waits for a page's notice, a sentence that holds these words."""
    tab.until(lambda: words in tab.one(f"#{page}-notice").text, f"the notice {words!r}")


def choose(tab, name):
    """Goes to one of the studio's pages."""
    next(each for each in tab.all("[role=tab]") if each.text == name).click()
