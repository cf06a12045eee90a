"""The examples of docs/api.md and of the guides run, and print what they say."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from concil.dockerhub import DockerHub
from concil.server import EmbeddedRegistry
from tests.support.docker_registry import DockerRegistry

DOCUMENTS = Path(__file__).parents[2] / "docs"
DOCUMENT = DOCUMENTS / "api.md"
GUIDES = [
    block
    for page in sorted((DOCUMENTS / "how-to").glob("*.md"))
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
]
TEXT = DOCUMENT.read_text() if DOCUMENT.exists() else ""
FIRST, *OTHERS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) or [""]
MANIFEST = next((block for block in OTHERS if "hub.post_manifest" in block), "")


@pytest.fixture(params=["embedded", pytest.param("docker-registry", marks=pytest.mark.real)])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty registry of either kind."""
    if request.param == "embedded":
        with EmbeddedRegistry(tmp_path / "layout") as registry:
            yield registry.host
    else:
        with DockerRegistry(tmp_path / "registry") as real:
            yield real.host


@pytest.fixture
def names(host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the document's first example leaves behind: a hub, in an empty directory."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    names: dict[str, Any] = {}
    assert run(FIRST, names, host) == promised(FIRST)
    yield names | {"host": host}
    hub: DockerHub = names["hub"]
    hub.close()


def run(block: str, names: dict[str, Any], host: str) -> list[str]:
    """Run an example against a registry; return what it prints."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(block.replace("localhost:5000", host), str(DOCUMENT), "exec"), names)
    return output.getvalue().splitlines()


def promised(block: str) -> list[str]:
    """What an example says that it prints."""
    return re.findall(r"# -> (.*)", block)


@pytest.mark.skipif(not TEXT, reason="the documents are not installed")
@pytest.mark.parametrize("block", OTHERS)
def test_an_example_prints_what_it_says(block: str, names: dict[str, Any]) -> None:
    if "tags" in block or "1.4" in block or "missing" in block:
        run(MANIFEST, dict(names), names["host"])

    assert run(block, names, names["host"]) == promised(block)
    assert promised(block)


@pytest.mark.parametrize("block", GUIDES)
def test_an_example_of_a_guide_prints_what_it_says(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with EmbeddedRegistry(tmp_path / "layout") as registry:
        assert run(block, {}, registry.host) == promised(block)
    assert promised(block)


@pytest.mark.skipif(not TEXT, reason="the documents are not installed")
def test_every_documented_name_is_there() -> None:
    import concil.dockerhub as documented  # noqa: PLC0415 - the module as its users see it

    for name in documented.__all__:
        assert name in TEXT
    for name in (name for name in vars(DockerHub) if not name.startswith("_")):
        assert name in TEXT, f"docs/api.md does not mention DockerHub.{name}"
