"""Media types of manifests, indexes, configs and layers."""

from __future__ import annotations

import re

__all__ = [
    "ACCEPTED_TYPES",
    "DOCKER_CONFIG",
    "DOCKER_MANIFEST",
    "DOCKER_MANIFEST_LIST",
    "DOCKER_SCHEMA1",
    "INDEX_TYPES",
    "MANIFEST_TYPES",
    "OCI_ARTIFACT",
    "OCI_CONFIG",
    "OCI_EMPTY",
    "OCI_INDEX",
    "OCI_LAYER",
    "OCI_LAYER_GZIP",
    "OCI_MANIFEST",
    "OCTET_STREAM",
    "UNKNOWN_ARTIFACT",
    "is_media_type",
]

OCI_INDEX = "application/vnd.oci.image.index.v1+json"


OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


OCI_ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json"  # withdrawn, but in use


OCI_CONFIG = "application/vnd.oci.image.config.v1+json"


OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"  # of oras: any file


OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"


OCI_EMPTY = "application/vnd.oci.empty.v1+json"  # an empty JSON object


UNKNOWN_ARTIFACT = "application/vnd.unknown.artifact.v1"  # of oras: no type was given


DOCKER_MANIFEST_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"


DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"


OCTET_STREAM = "application/octet-stream"  # for a blob that no manifest describes


INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_MANIFEST_LIST})


MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST, OCI_ARTIFACT})


ACCEPTED_TYPES = (OCI_INDEX, OCI_MANIFEST, DOCKER_MANIFEST_LIST, DOCKER_MANIFEST, OCI_ARTIFACT)


# RFC 6838 names; safe in headers and messages.
_MEDIA_TYPE = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
)


_FOREIGN_LAYER = re.compile(r"\.(nondistributable|foreign)\.")


def is_media_type(text: str) -> bool:
    """Return whether a text is a media type without parameters."""
    return bool(_MEDIA_TYPE.fullmatch(text))
