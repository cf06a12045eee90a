"""The display in a real Jupyter kernel: bars as widgets, and text where there are none."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import pytest

from concil.server import EmbeddedRegistry
from tests.support.images import make_image, put_image

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the machinery of notebooks
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")

# That a kernel listens on a port of loopback is news of the machinery, too.
pytestmark = [pytest.mark.process, pytest.mark.filterwarnings("ignore")]

SIZE = 3_000_000  # bytes
CELL = """
from concil import Engine, MirrorItem, ProgressDisplay

items = [MirrorItem(f"{HOST}/team/{name}:v1", f"oci:{OUT}:{name}") for name in ("app", "tool")]
with ProgressDisplay() as display, Engine(progress=display) as engine:
    display.set_expected_images(len(items))
    report = engine.mirror(items)
print(report.copied_count, "copied")
"""
WITHOUT_WIDGETS = "import sys; sys.modules['ipywidgets'] = None\n"


@pytest.fixture
def host(registry: EmbeddedRegistry) -> str:
    for number, name in enumerate(("app", "tool")):
        put_image(registry.url, f"team/{name}", "v1", make_image(number, (SIZE,)))
    return registry.host


def run_cell(source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:  # noqa: ANN401  # nbformat has no types
    """Run a cell in a kernel; return the notebook."""
    checkout = str(Path(__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([checkout, os.environ.get("PYTHONPATH", "")]))
    for name in ("HOME", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbclient.NotebookClient(notebook, timeout=100, kernel_name="python3").execute()
    return notebook


def texts(notebook: Any, name: str) -> str:  # noqa: ANN401
    """What the cell wrote to a stream."""
    outputs = notebook.cells[0].outputs
    return "".join(o["text"] for o in outputs if o["output_type"] == "stream" and o["name"] == name)


def test_bars_are_widgets(host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ipywidgets")
    source = f"HOST, OUT = {host!r}, {str(tmp_path / 'out')!r}\n{CELL}"

    notebook = run_cell(source, monkeypatch, tmp_path)

    shown = [o for o in notebook.cells[0].outputs if o["output_type"] == "display_data"]
    widgets = notebook.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    values = [str(widget["state"].get("value", "")) for widget in widgets.values()]
    lines = texts(notebook, "stdout").splitlines()
    assert len(shown) > 1
    assert all("application/vnd.jupyter.widget-view+json" in o["data"] for o in shown)
    assert any("2/2\u2007images" in value for value in values), values
    assert sorted(line.split()[0] for line in lines[:2]) == ["copied", "copied"]
    assert lines[2:] == ["2 copied"]
    assert texts(notebook, "stderr") == ""


def test_without_widgets_it_is_a_line_of_text(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = f"HOST, OUT = {host!r}, {str(tmp_path / 'out')!r}\n{WITHOUT_WIDGETS}{CELL}"

    notebook = run_cell(source, monkeypatch, tmp_path)

    assert "2 copied" in texts(notebook, "stdout")
    last = texts(notebook, "stderr").strip().split("\r")[-1]
    assert last.startswith("2/2 images  5.7 MiB")
    assert "Warning" not in texts(notebook, "stderr")
