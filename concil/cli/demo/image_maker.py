"""Generates the demo's images from a seed into a layout."""

from __future__ import annotations

import io
import json
import random
import tarfile
from collections.abc import Mapping, Sequence

from concil.config import MIB
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest
from concil.oci.media_types import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from concil.oci.platform import Platform
from concil.runtime.dataclass import dataclass
from concil.store.layout.store import LayoutDirectory

_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
_PLATFORMS = (
    Platform("linux", "amd64"),
    Platform("linux", "arm64"),
    Platform("linux", "arm", "v7"),
)
_CREATED = "2024-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class DemoImages:
    """The images that the demo verifies at the destination."""

    digests: dict[str, Digest]  # by repository:tag
    manifest_count: int
    platform_count: int
    large_layer: Descriptor  # the layer whose upload is cut


class DemoImageWriter:
    """Generates images that share layers. Not thread-safe."""

    def __init__(self, layout: LayoutDirectory) -> None:
        """Write into ``layout``."""
        self._layout = layout
        self._seed = 0
        self._manifest_count = 0

    def write_images(self, large_size: int) -> DemoImages:
        """Write five images, four of them for several platforms.

        Args:
            large_size: size of the large layer in bytes.
        """
        certificates = self._write_layer(1 * MIB)
        bases = {platform: [certificates, self._write_layer(6 * MIB)] for platform in _PLATFORMS}
        images = {"demo/base:1": self._write_index(bases)}
        for name in ("demo/web:1.4", "demo/api:2.0", "demo/jobs:2.0"):
            images[name] = self._write_index(
                {
                    platform: [*bases[platform], self._write_layer(1 * MIB)]
                    for platform in _PLATFORMS[:2]
                }
            )
        large_layer = self._write_layer(large_size)
        images["demo/model:2024"] = self._write_image(
            _PLATFORMS[0], [*bases[_PLATFORMS[0]], large_layer]
        )
        for name, entry in images.items():
            self._layout.set_entry(name, entry)
        digests = {name: entry.digest for name, entry in images.items()}
        return DemoImages(digests, self._manifest_count, len(_PLATFORMS), large_layer)

    def _write_layer(self, size: int) -> Descriptor:
        """Write a layer: a tar archive with one file of random bytes."""
        self._seed += 1
        generator = random.Random(self._seed)
        content = b"".join(
            generator.randbytes(min(MIB, size - offset)) for offset in range(0, size, MIB)
        )
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            member = tarfile.TarInfo(f"demo/layer-{self._seed}.bin")
            member.size = size
            tar.addfile(member, io.BytesIO(content))
        return self._write_blob(_LAYER_TYPE, archive.getvalue())

    def _write_image(self, platform: Platform, layers: Sequence[Descriptor]) -> Descriptor:
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
            "config": self._write_document(OCI_CONFIG, config).to_json(),
            "layers": [layer.to_json() for layer in layers],
        }
        self._manifest_count += 1
        return self._write_document(OCI_MANIFEST, document)

    def _write_index(self, platforms: dict[Platform, list[Descriptor]]) -> Descriptor:
        entries = []
        for platform, layers in platforms.items():
            image = self._write_image(platform, layers)
            entries.append(
                Descriptor(image.media_type, image.digest, image.size, platform=platform).to_json()
            )
        self._manifest_count += 1
        return self._write_document(
            OCI_INDEX, {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
        )

    def _write_document(self, media_type: str, document: Mapping[str, object]) -> Descriptor:
        return self._write_blob(media_type, json.dumps(document, indent=1).encode())

    def _write_blob(self, media_type: str, content: bytes) -> Descriptor:
        return Descriptor(media_type, self._layout.write_blob(content), len(content))
