"""The page in a browser: nothing is asked for, nothing sticks out, nothing is wrong."""

from __future__ import annotations

import pytest

from keras_ckpt_tools.pictures.report_page import report_page


@pytest.fixture
def page(run, write, tmp_path):
    """A page with long names, and with all that can be opened open."""
    tensors = {"tracked": {"a_name_without_any_place_to_break_" * 4: {"kind": "model"}}}
    last = run / "ckpt-00000008.weights.h5"
    from keras_ckpt_tools.runs.checkpoints import read_record

    write(last, read_record(last).progress, **tensors)
    path = tmp_path / "report.html"
    text = report_page(run, title="A run with a long name, ein_Name_ohne_jede_Trennstelle" * 2)
    path.write_text(text.replace("<details>", "<details open>"), encoding="utf-8")
    return path


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 820, 1280])
def test_the_page_fits_its_screen(browser, page, width, dark):
    """No sideways scrolling, readable type, colours of the reader's choice, no request."""
    browser.requests.clear()
    browser.open(page, width=width, dark=dark)
    assert browser.ask("document.documentElement.scrollWidth") == width
    assert browser.ask(
        "[...document.querySelectorAll('main *')].filter(e => !e.closest('thead') && "
        "e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML).join()"
    ) == ("")
    ground = browser.ask("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(17, 21, 27)" if dark else "rgb(255, 255, 255)")
    smallest = browser.ask(
        "Math.min(...[...document.querySelectorAll('.tick')].map(e => "
        "e.getBoundingClientRect().height))"
    )
    assert smallest >= 10
    assert browser.requests == [page.resolve().as_uri()]


def test_the_browser_would_tell(browser, tmp_path):
    """The checks above can fail: a wide page is wider, a picture from elsewhere is asked for."""
    path = tmp_path / "wide.html"
    path.write_text('<div style="width:2000px">x</div><img src="elsewhere.png">', encoding="utf-8")
    browser.requests.clear()
    browser.open(path, width=1280)
    assert browser.ask("document.documentElement.scrollWidth") > 1280
    assert len(browser.requests) == 2
