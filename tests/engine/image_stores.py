"""Places of every kind that images are copied from and to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from concil.oci.manifest import Manifest
from tests.engine.engine_setup import Registry, blob_path
from tests.support.images import (
    Image,
    assert_same_image,
    digest_of,
    get_blob,
    get_manifest,
    put_image,
    write_layout,
)
from tests.support.referrers import list_referrers, put_referrer

REF_NAME = "org.opencontainers.image.ref.name"


@dataclass
class ImageStore:
    """Somewhere images are, as an address and as a way to look."""

    address: str
    url: str = ""
    repository: str = ""
    layout: Path | None = None

    def load(self, image: Image, tag: str) -> None:
        """Put an image there without concil."""
        if self.layout is not None:
            write_layout(self.layout, {tag: image})
        else:
            put_image(self.url, self.repository, tag, image)

    def load_referrer(self, referrer: Image) -> None:
        """Put what refers to an image there as other tools do, without concil."""
        if self.layout is None:
            put_referrer(self.url, self.repository, referrer)
            return
        for content in (*referrer.blobs.values(), referrer.manifest):
            blob_path(self.layout, digest_of(content)).write_bytes(content)
        index = self._index()
        index["manifests"].append(referrer.descriptor())
        (self.layout / "index.json").write_text(json.dumps(index))

    def load_tagged(self, image: Image, tag: str) -> None:
        """Put an image there under one more tag."""
        if self.layout is None:
            put_image(self.url, self.repository, tag, image)
            return
        for content in (*image.blobs.values(), image.manifest):
            blob_path(self.layout, digest_of(content)).write_bytes(content)
        index = self._index()
        index["manifests"].append({**image.descriptor(), "annotations": {REF_NAME: tag}})
        (self.layout / "index.json").write_text(json.dumps(index))

    def referrers(self, digest: str) -> list[dict[str, object]]:
        """Return what is listed as referring to a manifest."""
        if self.layout is None:
            return list_referrers(self.url, self.repository, digest)
        found = []
        for entry in self._index()["manifests"]:
            document = json.loads(blob_path(self.layout, entry["digest"]).read_bytes())
            if document.get("subject", {}).get("digest") == digest:
                found.append(entry)
        return found

    def assert_holds(self, *images: Image) -> None:
        """Compare manifests and their blobs, by digest, byte for byte."""
        for image in images:
            for digest, content in {**image.blobs, image.digest: image.manifest}.items():
                if self.layout is not None:
                    assert blob_path(self.layout, digest).read_bytes() == content
                elif digest == image.digest:
                    assert get_manifest(self.url, self.repository, digest) == content
                else:
                    assert get_blob(self.url, self.repository, digest) == content

    def _index(self) -> dict[str, Any]:
        assert self.layout is not None
        found: dict[str, Any] = json.loads((self.layout / "index.json").read_text())
        return found

    def assert_same(self, image: Image, tag: str) -> None:
        """Compare all that is below a tag, byte for byte, without concil."""
        if self.layout is None:
            assert_same_image(self.url, self.repository, tag, image)
            return
        index = Manifest.parse((self.layout / "index.json").read_bytes())
        named = {
            c.annotations[REF_NAME]: str(c.digest)
            for c in index.children()
            if REF_NAME in c.annotations
        }
        assert named[tag] == image.digest
        for each in image.walk():
            assert blob_path(self.layout, each.digest).read_bytes() == each.manifest
        for digest, blob in image.all_blobs().items():
            assert blob_path(self.layout, digest).read_bytes() == blob


EITHER = ["layout", "embedded", pytest.param("docker", marks=pytest.mark.real)]


def create_store(request: pytest.FixtureRequest, kind: str, role: str) -> ImageStore:
    """Return an empty place of some kind."""
    if kind == "layout":
        path = request.getfixturevalue("tmp_path") / f"{role}-layout"
        return ImageStore(f"oci:{path}", layout=path)
    name = "embedded" if kind == "embedded" else "docker_registry"
    registry: Registry = request.getfixturevalue(name)
    repository = f"{request.getfixturevalue('repository')}/{role}"
    return ImageStore(f"{registry.url}/{repository}", registry.url, repository)
