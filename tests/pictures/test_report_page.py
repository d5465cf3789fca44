"""The page about a run: whole, self-contained, and harmless whatever a file says."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser

import pytest
from pictures.records import progress_after

from keras_ckpt_tools.errors import ArtefactError
from keras_ckpt_tools.metadata import TrainingProgress
from keras_ckpt_tools.pictures.report_page import STYLE, report_page
from keras_ckpt_tools.pictures.svg import ticks

VOID = {"meta"}
EVIL = "</style><script>alert(1)</script>\"'><img src=//evil.example onerror=x>\x1b[2J"


class Page(HTMLParser):
    """Reads a page, and fails where a tag is not closed in its turn."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        """All that is written on it."""
        return " ".join(" ".join(self.words).replace(STYLE, "").split())

    def count(self, tag: str, kind: str | None = None) -> int:
        """Return how many elements of a kind there are."""
        return sum(
            name == tag and (kind is None or kind in (attributes.get("class") or "").split())
            for name, attributes in self.tags
        )


def test_the_page_tells_all_of_a_run(run):
    """Figures, curves with their marks, each checkpoint, restarts, contents, objects, versions."""
    page = Page(report_page(run))
    assert page.count("svg") == 2 + 6
    assert page.count("path", "star") == 1 + 1
    assert page.count("circle", "kept") == 2 * 3 + 1
    assert page.count("circle", "deleted") == 2 * 5 + 1
    assert page.count("path", "restart") == 2 * 2 + 1
    assert page.count("tr", "best") == 1
    assert page.count("tr", "gone") == 3 + 2
    for words in (
        "Epochs completed 8",
        "Best val_loss 0.25 in epoch 4",
        "Checkpoints kept 3 of 8 saved",
        "Restarts 2",
        "ckpt-00000004.weights.h5 best",
        "ckpt-00000008.weights.h5 newest",
        "epoch 5 and 3 batches",
        "Contents of ckpt-00000008.weights.h5",
        "shop>Price",
        "keras 3.10.0",
    ):
        assert words in page.text, words


def test_the_page_asks_nobody_for_anything(run):
    """No address, no script, and every picture says in words what it shows."""
    text = report_page(run)
    page = Page(text)
    assert not re.search(r"https?:|url\(|@import|//", text.replace("<!doctype", ""))
    assert not {"script", "img", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert not {"src", "href", "srcset"} & {name for _, given in page.tags for name in given}
    ids = {given["id"] for _, given in page.tags if "id" in given}
    drawn = [given for tag, given in page.tags if tag == "svg" and "aria-hidden" not in given]
    assert all(given["role"] == "img" and given["aria-labelledby"] in ids for given in drawn)
    assert ("html", {"lang": "en"}) in page.tags
    assert "Curves of loss over epochs. val_loss: from 1 to" in page.text


def test_what_a_file_says_is_text(tmp_path, write):
    """Names of metrics, objects, versions and files are anybody's, and open no tag."""
    progress = progress_after(2).to_json()
    for part in ("history", "history_epochs"):
        progress[part] = {f"{EVIL}{name}": values for name, values in progress[part].items()}
    progress["best"]["monitor"] = f"{EVIL}val_loss"
    folder = tmp_path / "<b onclick=x>"
    write(
        folder / "ckpt-00000002.weights.h5",
        progress,
        objects=[{"registered_name": EVIL, "module": EVIL, "qualname": EVIL}],
        versions={EVIL: EVIL},
        tracked={EVIL: {"kind": EVIL}, "_fit": {"kind": "run", "state": {"data": {EVIL: EVIL}}}},
    )
    (folder / "'onerror=x <i>.keras").write_bytes(b"not a model")
    page = Page(report_page(folder, title=EVIL))
    assert {"b", "i", "img", "script"}.isdisjoint(tag for tag, _ in page.tags)
    assert not any(name.startswith("on") for _, given in page.tags for name in given)
    assert "\x1b" not in page.text
    assert "evil.example" in page.text


def test_many_saves_that_are_gone_share_a_line(tmp_path, write):
    """A run of ten thousand epochs has a page that can be read, and sent."""
    write(tmp_path / "ckpt-00010000.weights.h5", progress_after(10))
    many = 10_000
    progress = TrainingProgress(
        many,
        step=many * 10,
        run_id="r",
        saves=((1, 0, 10, many - 1, 1, 0, 10),),
    )
    write(tmp_path / "ckpt-00010000.weights.h5", progress)
    text = report_page(tmp_path)
    assert "9,999 saves, deleted" in Page(text).text
    assert "1 to 9,999" in Page(text).text
    assert "No epoch has ended yet" in text
    assert len(text) < 100_000


def test_a_hole_in_the_metrics_is_drawn_as_one(tmp_path, write, infinite):
    """And its values are called what they are."""
    write(tmp_path / "ckpt-00000006.weights.h5", infinite)
    text = report_page(tmp_path)
    assert not re.search(r'(?:d|cx|cy|x|y)="[^"]*(?:nan|inf)', text)
    assert Page(text).count("circle", "alone") == 2


def test_numbers_out_of_all_proportion_do_no_harm(tmp_path, write):
    """They are a file's claim, and such a file counts as damaged."""
    huge = 10**400
    said = progress_after(2).to_json() | {
        "step": huge,
        "elapsed_s": huge,
        "saved_at": huge,
        "restarts": [[huge, 0, 0, huge], [1, 0, 10, -huge]],
        "saves": [[1, 0, 10, huge, 1, 0, 10]],
    }
    said["history"]["loss"] = [huge, -huge]
    write(tmp_path / "ckpt-00000002.weights.h5", said)
    with pytest.raises(ArtefactError, match="Not counted: ckpt-00000002"):
        report_page(tmp_path)


def test_a_place_without_a_run_has_no_page(tmp_path):
    """As for `plot`."""
    with pytest.raises(ArtefactError, match="no checkpoint here"):
        report_page(tmp_path)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (-3e-9, 2e-9), (1e300, 1.1e300), (5, 5.0001), (0, 1e-320)]
)
def test_ticks_are_few_and_inside(low, high):
    """Whatever the numbers are."""
    found = ticks(low, high, 6)
    assert len(found) <= 8
    assert all(low - abs(low) * 1e-9 <= value <= high * (1 + 1e-9) for value in found)
    assert all(map(math.isfinite, found))


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, as WCAG 2 defines it."""

    def luminance(colour: str) -> float:
        parts = (int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5))
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_colours_can_be_told_apart_in_light_and_dark():
    """Text has 4.5 to 1 on each ground that it stands on, curves have 3 to 1."""
    colours = re.findall(r"--([a-z-]+):(#[0-9a-f]{6})", STYLE)
    half = len(colours) // 2
    for theme in (dict(colours[:half]), dict(colours[half:])):
        for ground in ("ground", "card", "wash"):
            for text in ("text", "soft", "accent", "gone", "bad"):
                if (text, ground) not in {("gone", "wash"), ("bad", "wash")}:
                    assert contrast(theme[text], theme[ground]) >= 4.5, (text, ground)
            assert contrast(theme["second"], theme[ground]) >= 3, ground
