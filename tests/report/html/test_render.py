"""The page as text: whole, from the package alone, and inert whatever is in it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from importlib import resources
from pathlib import Path

import pytest

from concil.errors import StoreError
from concil.progress.events import State
from concil.report.html.render import embed_json, render
from concil.report.timeline import Timeline
from tests.report.html.recorded_runs import RecordedRun, read_page_data

HOSTILE = (
    "</script><script>document.title='owned'</script>",
    "<!--<script>",
    "&lt;b&gt; & <b>",
    "\u2028alert(1)\u2029",
    "{{SCRIPT}} {{DATA}}",
    "'\"`\\\x00\x1b[2J\x7f",
    "\ud800 alone",
)


def parts(page: str) -> dict[str, str]:
    """The policy and what it has to allow."""
    [policy] = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    [style] = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    [script] = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    return {"policy": policy, "style": style, "script": script}


def hash_of(content: str) -> str:
    return base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def test_the_parts_of_the_page_are_in_the_package() -> None:
    names = {each.name for each in (resources.files("concil") / "report" / "html").iterdir()}

    assert {"page.html", "page.css", "main.js", "timeline.js"} <= names


@pytest.mark.parametrize("text", HOSTILE)
def test_any_text_is_data_and_nothing_else(text: str) -> None:
    written = embed_json({"text": text})

    assert json.loads(written) == {"text": text}
    assert written.isascii()
    assert not set("<>&") & set(written)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_title_ends_no_element(text: str) -> None:
    page = render({"title": text}, text)

    assert page.isascii()
    assert read_page_data(page) == {"title": text}
    assert page.count("<script") == 2
    assert page.count("</script>") == 2


def test_the_policy_allows_these_scripts_and_styles_and_no_network() -> None:
    found = parts(RecordedRun().page(1))

    rules = dict(rule.strip().split(" ", 1) for rule in found["policy"].split(";"))
    assert rules == {
        "default-src": "'none'",
        "script-src": f"'sha256-{hash_of(found['script'])}'",
        "style-src": f"'sha256-{hash_of(found['style'])}'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_the_page_names_nothing_outside_of_it() -> None:
    page = RecordedRun().page(1)

    assert set(re.findall(r"https?://[^\s\"'`]*", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\b(src|href)=[\"'](?!data:)", page)
    assert not re.search(r"\b(eval|innerHTML|outerHTML|insertAdjacentHTML)\b|document\.write", page)


def test_a_page_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    story = RecordedRun()
    story.blob(0, 0, "a", State.DONE, 1000)

    story.timeline.write_page(tmp_path / "page.html", title="first")
    story.timeline.write_page(str(tmp_path / "page.html"), title="second", complete=False)

    data = read_page_data((tmp_path / "page.html").read_text())
    assert (data["title"], data["complete"]) == ("second", False)
    assert [each.name for each in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.parametrize("name", [".", "missing/page.html"])
def test_unwritable_path_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="cannot write the report"):
        Timeline().write_page(tmp_path / name)
