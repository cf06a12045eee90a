"""Images for the demo: made from a seed, written into a layout."""

from __future__ import annotations

import io
import json
import random
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from concil.config import MIB
from concil.content import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, Descriptor, Digest, Platform
from concil.store.layout import Layout

_LAYER = "application/vnd.oci.image.layer.v1.tar"
_PLATFORMS = (
    Platform("linux", "amd64"),
    Platform("linux", "arm64"),
    Platform("linux", "arm", "v7"),
)
_CREATED = "2024-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Made:
    """What the demo has to find at the destination."""

    images: dict[str, Digest]  # by repository:tag
    manifests: int
    platforms: int
    large: Descriptor  # the layer whose upload is cut


class Maker:
    """Makes images that share layers. One thread."""

    def __init__(self, layout: Layout) -> None:
        """Write into ``layout``."""
        self._layout = layout
        self._seed = 0
        self._manifests = 0

    def make(self, large: int) -> Made:
        """Write five images, four of them for several platforms.

        Args:
            large: bytes of the one large layer.
        """
        certificates = self._layer(1 * MIB)
        bases = {each: [certificates, self._layer(6 * MIB)] for each in _PLATFORMS}
        images = {"demo/base:1": self._index(bases)}
        for name in ("demo/web:1.4", "demo/api:2.0", "demo/jobs:2.0"):
            images[name] = self._index(
                {each: [*bases[each], self._layer(1 * MIB)] for each in _PLATFORMS[:2]}
            )
        heavy = self._layer(large)
        images["demo/model:2024"] = self._image(_PLATFORMS[0], [*bases[_PLATFORMS[0]], heavy])
        for name, entry in images.items():
            self._layout.set_entry(name, entry)
        digests = {name: entry.digest for name, entry in images.items()}
        return Made(digests, self._manifests, len(_PLATFORMS), heavy)

    def _layer(self, size: int) -> Descriptor:
        """A tar archive with one file of random bytes."""
        self._seed += 1
        generator = random.Random(self._seed)
        content = b"".join(generator.randbytes(min(MIB, size - at)) for at in range(0, size, MIB))
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            member = tarfile.TarInfo(f"demo/layer-{self._seed}.bin")
            member.size = size
            tar.addfile(member, io.BytesIO(content))
        return self._blob(_LAYER, archive.getvalue())

    def _image(self, platform: Platform, layers: Sequence[Descriptor]) -> Descriptor:
        config = {
            "created": _CREATED,
            "architecture": platform.architecture,
            "os": platform.os,
            **({"variant": platform.variant} if platform.variant else {}),
            "config": {"Labels": {"org.opencontainers.image.source": "concil demo"}},
            "rootfs": {"type": "layers", "diff_ids": [str(layer.digest) for layer in layers]},
        }
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": self._document(OCI_CONFIG, config).to_json(),
            "layers": [layer.to_json() for layer in layers],
        }
        self._manifests += 1
        return self._document(OCI_MANIFEST, document)

    def _index(self, platforms: dict[Platform, list[Descriptor]]) -> Descriptor:
        entries = []
        for platform, layers in platforms.items():
            image = self._image(platform, layers)
            entries.append(
                Descriptor(image.media_type, image.digest, image.size, platform=platform).to_json()
            )
        self._manifests += 1
        return self._document(
            OCI_INDEX, {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
        )

    def _document(self, media_type: str, document: Mapping[str, object]) -> Descriptor:
        return self._blob(media_type, json.dumps(document, indent=1).encode())

    def _blob(self, media_type: str, content: bytes) -> Descriptor:
        return Descriptor(media_type, self._layout.write_blob(content), len(content))
