"""The page in a real browser: drawn, searched, walked through by keys, and inert."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from concil.progress.events import Event, State
from tests.report.html.recorded_runs import HOST, RESET, RecordedRun, digest, long_run
from tests.support.browser import Browser

pytestmark = pytest.mark.real

LARGE = 10_000  # transfers
KEY = {"right": "\ue014", "down": "\ue015", "up": "\ue013", "enter": "\ue007", "escape": "\ue00c"}
# How many pixels of a rectangle of the canvas have each colour.
COLOURS = """
    const canvas = document.getElementById("canvas");
    const ratio = canvas.width / canvas.clientWidth;
    const [x, y, w, h] = Array.from(arguments, (n) => Math.round(n * ratio));
    const copy = new OffscreenCanvas(w, h).getContext("2d", { willReadFrequently: true });
    copy.drawImage(canvas, x, y, w, h, 0, 0, w, h);
    const found = {};
    const pixels = copy.getImageData(0, 0, w, h).data;
    for (let n = 0; n < pixels.length; n += 4) {
      const name = [...pixels.slice(n, n + 3)].map((c) => c.toString(16).padStart(2, "0")).join("");
      found["#" + name] = (found["#" + name] ?? 0) + 1;
    }
    return found;
"""


def small_run() -> RecordedRun:
    """One transfer of each kind, on two workers, in ten seconds."""
    recorded_run = RecordedRun()
    for name in "abcdef":
        recorded_run.blob(0, 9, name, State.WAITING)
    recorded_run.blob(1, 0, "a", State.STARTED)
    recorded_run.blob(1, 0, "a", State.MOVING, 0)
    recorded_run.blob(4, 0, "a", State.DONE, 1000)
    recorded_run.blob(1, 1, "b", State.STARTED)
    recorded_run.blob(2, 1, "b", State.RETRYING, 400, 1000, RESET)
    recorded_run.blob(5, 1, "b", State.MOVING, 400)
    recorded_run.blob(6, 1, "b", State.DONE, 1000)
    recorded_run.blob(5, 0, "c", State.MOUNTED, 1000)
    recorded_run.blob(6, 0, "d", State.PRESENT, 1000)
    recorded_run.blob(7, 0, "e", State.STARTED)
    recorded_run.blob(9, 0, "e", State.FAILED, 10, 1000, "the disk is full")
    recorded_run.image(0, "app:v1", State.STARTED)
    recorded_run.image(6, "app:v1", State.DONE, 2000)
    recorded_run.image(9, "other:v2", State.FAILED, 0, "404 not there")
    return recorded_run


def open_page(browser: Browser, recorded_run: RecordedRun, tmp_path: Path, at: float = 10) -> None:
    """Write the page of a story and open it from disk."""
    path = tmp_path / "page.html"
    path.write_text(recorded_run.page(at, title="images.txt"), encoding="utf-8")
    browser.open(path)


def text_of(browser: Browser, selector: str) -> str:
    return str(browser.run("return document.querySelector(arguments[0]).innerText", selector))


def rows_of(browser: Browser, table: str) -> list[list[str]]:
    """The rows of a table that are elements now, as texts of their cells."""
    found: list[list[str]] = browser.run(
        """return [...document.querySelectorAll(`${arguments[0]} .rows .line`)]
             .map((line) => [...line.children].map((cell) => cell.innerText))""",
        f"#{table}",
    )
    return found


def listed(browser: Browser, table: str) -> int:
    """How many rows a table has, seen or not."""
    selector = f"#{table} [role=grid]"
    count = browser.run(
        "return document.querySelector(arguments[0]).getAttribute('aria-rowcount')", selector
    )
    return int(count) - 1


def colours(browser: Browser, x: float, y: float, width: float, height: float) -> Counter[str]:
    return Counter(browser.run(COLOURS, x, y, width, height))


def variable(browser: Browser, name: str) -> str:
    script = "return getComputedStyle(document.documentElement).getPropertyValue(arguments[0])"
    return str(browser.run(script, f"--{name}")).strip()


def stage(browser: Browser) -> dict[str, Any]:
    """Where the canvas is in the window."""
    script = """
        document.getElementById("canvas").scrollIntoView({ block: "center", behavior: "instant" });
        return document.getElementById("canvas").getBoundingClientRect().toJSON();
    """
    found: dict[str, Any] = browser.run(script)
    return found


def test_destinations_are_shown_if_there_are_several(browser: Browser, tmp_path: Path) -> None:
    run = small_run()
    open_page(browser, run, tmp_path)
    assert browser.run("return document.getElementById('destinations').hidden") is True

    hostile = "oci:/srv/<img src=x onerror=document.title='hacked'>"
    event = Event("image", "quay.io/a:1", f"{hostile}:a", State.FAILED, 0, None, "no space")
    run.emit(9, "main", event)
    open_page(browser, run, tmp_path)

    assert hostile in text_of(browser, "#destinations")
    assert "1 copied, 0 up to date, 1 failed, 2.0 KiB sent" in text_of(
        browser, "#destinations .bad:last-child"
    )
    assert browser.run("return document.title") != "hacked"


def test_head_shows_the_totals(browser: Browser, tmp_path: Path) -> None:
    open_page(browser, small_run(), tmp_path)

    assert text_of(browser, "h1") == "images.txt"
    assert text_of(browser, "#verdict") == "1 image failed"
    facts = browser.run("""
        const boxes = [...document.querySelectorAll("#totals div")];
        return Object.fromEntries(boxes.map((box) => [
          box.querySelector("dt").innerText, box.querySelector("dd").firstChild.data
        ]));
    """)
    assert facts["Images copied"] == "1"
    assert facts["Blobs sent"] == "2"
    assert facts["Blobs mounted"] == "1"
    assert facts["Already present"] == "1"
    assert facts["Retries"] == "1"
    failed = text_of(browser, "#failed")
    assert "404 not there" in failed
    assert "the disk is full" in failed


def test_the_timeline_is_drawn(browser: Browser, tmp_path: Path) -> None:
    open_page(browser, small_run(), tmp_path)

    wide = stage(browser)["width"]
    tall = stage(browser)["height"]
    strip = colours(browser, 84, 0, wide - 92, 74)
    rows = colours(browser, 84, 124, wide - 92, tall - 124)
    assert strip[variable(browser, "rate-fill")] > 500
    for name in ("sent", "retry", "mounted", "present", "failed"):
        assert rows[variable(browser, name)] >= 10, name
    # 3 of 10 seconds of one row and 2 of another were sent: about half of a row.
    assert 0.2 < rows[variable(browser, "sent")] / (18 * (wide - 92)) < 0.7


def test_searching_filters_tables_and_timeline(browser: Browser, tmp_path: Path) -> None:
    open_page(browser, small_run(), tmp_path)
    wide = stage(browser)["width"]
    sent = variable(browser, "sent")
    before = colours(browser, 84, 124, wide - 92, 60)[sent]

    browser.type("#search", "connection RESET")
    browser.wait("document.getElementById('found').textContent !== ''")
    browser.measure(lambda: None)

    assert [row[0] for row in rows_of(browser, "transfers")] == [digest("b")[7:19]]
    assert listed(browser, "images") == 0
    assert text_of(browser, "#found") == "0 images, 1 transfer"
    assert colours(browser, 84, 124, wide - 92, 60)[sent] < 0.6 * before


def test_the_legend_shows_only_what_is_chosen(browser: Browser, tmp_path: Path) -> None:
    open_page(browser, small_run(), tmp_path)

    browser.click("#legend [data-kind=failed]")
    failed = (listed(browser, "images"), listed(browser, "transfers"))
    browser.click("#legend [data-kind=retried]")
    either = listed(browser, "transfers")
    browser.click("#legend [data-kind=failed]")
    browser.click("#legend [data-kind=retried]")

    assert (failed, either) == ((1, 1), 2)
    assert listed(browser, "transfers") == 6


def test_tables_are_sorted_by_any_column(browser: Browser, tmp_path: Path) -> None:
    open_page(browser, small_run(), tmp_path)

    browser.click("#transfers .names [role=columnheader]:nth-child(7) button")
    slowest = [row[6] for row in rows_of(browser, "transfers")]
    browser.click("#transfers .names [role=columnheader]:nth-child(7) button")
    quickest = [row[6] for row in rows_of(browser, "transfers")]

    assert slowest == ["5.00 s", "3.00 s", "2.00 s", "", "", ""]
    assert quickest == ["2.00 s", "3.00 s", "5.00 s", "", "", ""]


def test_pointing_at_a_transfer_shows_its_details(browser: Browser, tmp_path: Path) -> None:
    open_page(browser, small_run(), tmp_path)
    place = stage(browser)
    second = (place["width"] - 92) / 10
    middle = (place["left"] + 84 + 3 * second, place["top"] + 124 + 24 + 12)  # worker 1

    browser.move_mouse(middle)
    browser.wait("!document.getElementById('tip').hidden")
    tip = text_of(browser, "#tip")
    browser.drag(middle, middle)
    details = text_of(browser, "#details")

    assert digest("b")[7:19] in tip
    assert "retried 1 time" in tip
    for words in (digest("b"), f"{HOST}/app", "5.00 s", "worker 1", RESET, "1.00 s"):
        assert words in details


def test_pointing_at_the_throughput_shows_its_value(browser: Browser, tmp_path: Path) -> None:
    open_page(browser, small_run(), tmp_path)
    place = stage(browser)
    second = (place["width"] - 92) / 10

    browser.move_mouse((place["left"] + 84 + 3.5 * second, place["top"] + 40))
    browser.wait("!document.getElementById('tip').hidden")

    # One blob moved its 1000 bytes within three seconds.
    rate, waiting = text_of(browser, "#tip").splitlines()[-1].split(", ")
    assert int(rate.removesuffix(" B/s")) == pytest.approx(1000 / 3, rel=0.01)
    assert waiting == "4 waiting"


def test_dragging_over_the_throughput_zooms_and_a_key_resets_the_zoom(
    browser: Browser, tmp_path: Path
) -> None:
    open_page(browser, small_run(), tmp_path)
    place = stage(browser)
    wide, sent = place["width"] - 92, variable(browser, "sent")
    whole = colours(browser, 84, 124, wide, 20)[sent]
    top = place["top"] + 40

    browser.drag((place["left"] + 84 + wide * 0.15, top), (place["left"] + 84 + wide * 0.35, top))
    browser.measure(lambda: None)
    near = colours(browser, 84, 124, wide, 20)[sent]
    browser.run("document.getElementById('canvas').focus({ preventScroll: true })")
    browser.press("0")
    browser.measure(lambda: None)

    # From second 1.5 to 3.5 worker 0 did nothing but send one blob.
    assert near > 2.5 * whole
    assert colours(browser, 84, 124, wide, 20)[sent] == whole


def test_arrow_keys_select_transfers(browser: Browser, tmp_path: Path) -> None:
    open_page(browser, small_run(), tmp_path)
    stage(browser)
    browser.run("document.getElementById('canvas').focus({ preventScroll: true })")

    seen = []
    for key in ("right", "right", "right", "down", "up"):
        browser.press(KEY[key])
        seen.append(text_of(browser, "#details dd"))
    browser.press(KEY["escape"])

    assert seen == [digest(name) for name in ("a", "c", "d", "b", "a")]
    assert browser.run("return document.getElementById('details').childElementCount") == 0


def test_keys_walk_through_a_table(browser: Browser, tmp_path: Path) -> None:
    open_page(browser, small_run(), tmp_path)
    browser.run("document.querySelector('#transfers .line[tabindex=\"0\"]').focus()")

    browser.press(KEY["down"], KEY["down"], KEY["enter"])

    chosen = browser.run(
        "return document.querySelector('#transfers [aria-selected=true]').firstChild.innerText"
    )
    assert text_of(browser, "#details dd").startswith(f"sha256:{chosen}")


def test_slash_focuses_the_search(browser: Browser, tmp_path: Path) -> None:
    open_page(browser, small_run(), tmp_path)

    browser.press("/")

    assert browser.run("return document.activeElement.id") == "search"
    assert browser.run("return document.activeElement.value") == ""


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_every_window(browser: Browser, tmp_path: Path, width: int, *, dark: bool) -> None:
    browser.resize(width, 800, dark=dark)
    open_page(browser, small_run(), tmp_path)

    assert browser.run("return document.documentElement.scrollWidth") == width
    ink, ground = (
        browser.run(f"return getComputedStyle(document.body).{name}")
        for name in ("color", "backgroundColor")
    )
    assert (luminance(ink) > luminance(ground)) is dark
    assert contrast(ink, ground) > 7


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)`. Source: WCAG 2.1."""
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (int(text) / 255 for text in colour[4:-1].split(","))
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_what_a_registry_wrote_is_text_and_nothing_else(browser: Browser, tmp_path: Path) -> None:
    attack = (
        "</script><img src=http://127.0.0.1:9/x onerror=owned=1><script>window.owned=1</script>"
    )
    override = "v1\u202egnp.exe"
    recorded_run = RecordedRun()
    for at, name in enumerate((attack, "<b>bold</b>", "javascript:owned=1", override, "\ud800")):
        image = Event("image", name, f"{HOST}:{name}", State.FAILED, 0, None, f"{name} {attack}")
        blob = Event("blob", name, name, State.FAILED, 0, 1, attack)
        recorded_run.emit(at, f"worker {attack}", image)
        recorded_run.emit(at, f"worker {attack}", blob)
    path = tmp_path / "page.html"
    path.write_text(recorded_run.page(9, title=attack), encoding="utf-8")
    browser.open(path)
    for row in range(5):
        browser.run(
            "document.querySelectorAll('#transfers .rows .line')[arguments[0]].click()", row
        )
        browser.run("document.querySelectorAll('#images .rows .line')[arguments[0]].click()", row)
    browser.type("#search", "<b>bold")
    browser.wait("document.getElementById('found').textContent !== ''")

    assert browser.run("return typeof owned") == "undefined"
    assert browser.run("return document.querySelectorAll('img, b, main script').length") == 0
    assert text_of(browser, "h1") == attack
    assert attack in text_of(browser, "#failed")
    assert "\u202e" not in text_of(browser, "body")
    assert "v1\\u{202e}gnp.exe" in text_of(browser, "#failed")
    assert listed(browser, "transfers") == 1


def test_a_script_that_got_into_the_page_would_not_run(browser: Browser, tmp_path: Path) -> None:
    page = RecordedRun().page(1).replace("<main>", "<main><script>window.owned = 1</script>")
    (tmp_path / "page.html").write_text(page)

    browser.open(tmp_path / "page.html")

    assert browser.run("return typeof owned") == "undefined"
    [refused] = browser.console_messages()
    assert "Content Security Policy" in refused


def test_ten_thousand_transfers_are_drawn_searched_and_scrolled(
    browser: Browser, tmp_path: Path
) -> None:
    recorded_run = long_run(LARGE)
    open_page(browser, recorded_run, tmp_path, at=recorded_run.end)

    assert listed(browser, "transfers") == LARGE
    wide = stage(browser)["width"]
    drawn = colours(browser, 84, 124, wide - 92, 190)
    elements = browser.run("return document.querySelectorAll('*').length")
    browser.run("document.querySelector('#transfers .scroll').scrollTop = 1e9")
    browser.measure(lambda: None)
    last = browser.run(
        "return [...document.querySelectorAll('#transfers .rows .line')].at(-1).ariaRowIndex"
    )
    browser.type("#search", "team-42/app-3")
    browser.wait("document.getElementById('found').textContent !== ''")
    found = listed(browser, "transfers")

    assert drawn[variable(browser, "sent")] > 20_000
    assert drawn[variable(browser, "retry")] > 1_000
    # Rows that nobody sees are no elements.
    assert elements < 1500
    assert last == str(LARGE + 1)
    assert found == sum(n // 5 % 97 == 42 and n // 5 % 13 == 3 for n in range(LARGE))


def test_an_empty_run_has_a_page(browser: Browser, tmp_path: Path) -> None:
    open_page(browser, RecordedRun(), tmp_path, at=0.001)

    assert text_of(browser, "#verdict") == "Complete, no failures"
    assert listed(browser, "transfers") == 0
