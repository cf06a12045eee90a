"""A timeline as the progress sink of an engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from concil import MirrorItem, Timeline
from tests.engine.engine_setup import QUICK, engine_of
from tests.report.html.recorded_runs import read_page_data
from tests.support.docker_registry import DockerRegistry
from tests.support.images import make_image, put_image

pytestmark = pytest.mark.real


def test_a_mirror_from_python_has_a_page(
    docker_registry: DockerRegistry, tmp_path: Path, workers: int
) -> None:
    image = make_image(77, (500_000, 3000))
    put_image(docker_registry.url, "page/app", "v1", image)
    source = f"{docker_registry.url}/page/app"
    timeline = Timeline()
    items = [
        MirrorItem(f"{source}:v1", f"oci:{tmp_path}/there:v1"),
        MirrorItem(f"{source}:none", f"oci:{tmp_path}/elsewhere:v1"),
    ]

    with engine_of(replace(QUICK, workers=workers), progress=timeline) as engine:
        engine.mirror(items)
        timeline.write_page(tmp_path / "page.html", title="two images")

    data = read_page_data((tmp_path / "page.html").read_text())
    assert data["title"] == "two images"
    assert set(data["transfers"]["digest"]) == set(image.blobs)
    assert set(data["transfers"]["state"]) == {"done"}
    # The image that is not there has no stores to open; it is told all the same.
    states = dict(zip(data["images"]["source"], data["images"]["state"], strict=True))
    assert states == {f"{source}:v1": "done", f"{source}:none": "failed"}
