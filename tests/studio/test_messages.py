"""What a page tells of errors."""

import asyncio
import re
from html import unescape

import pytest

from lcg_lightning.errors import UserError
from lcg_lightning.studio.messages import UNKNOWN, reporting


def refused(text):
    raise UserError(f"<b>{text}</b> is no face")


def broken(text):
    yield {"picture": text}
    raise RuntimeError(f"at /home/me/secret.py: {text}")


def test_a_users_error_is_its_sentence_and_any_other_one_goes_to_the_terminal(capsys):
    assert reporting(refused, "notice")("x") == {
        "notice": '<p role="alert" class="notice">&lt;b&gt;x&lt;/b&gt; is no face</p>'
    }
    assert capsys.readouterr().err == ""
    first, last = reporting(broken, "notice")("x")
    assert first == {"notice": "", "picture": "x"}
    assert UNKNOWN in last["notice"]
    assert "secret" not in last["notice"]
    assert "RuntimeError: at /home/me/secret.py: x" in capsys.readouterr().err


def test_a_handler_that_yields_nothing_clears_the_notice_alone():
    assert list(reporting(lambda: (yield from ()), "notice")()) == [{"notice": ""}]


@pytest.mark.parametrize(
    ("asked", "answer"), [(99999, "There is no face 99999"), (1.5, "There is no face 1.5"), (2, "")]
)
def test_the_page_shows_the_sentence(page, asked, answer):
    from gradio.state_holder import SessionState

    go = next(fn for fn in page.fns.values() if fn.fn.__name__ == "go")
    inputs = [component.value for component in go.inputs]
    inputs[1] = asked
    output = asyncio.run(page.process_api(go, inputs, state=SessionState(page)))
    shown = dict(zip([c.elem_id for c in go.outputs], output["data"], strict=True))
    text = re.sub("<.*?>", "", unescape(shown["edit-notice"]))
    assert text.startswith(answer)
    assert bool(text) == bool(answer)
