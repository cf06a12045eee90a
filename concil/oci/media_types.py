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
    "OCI_INDEX",
    "OCI_MANIFEST",
    "OCTET_STREAM",
]

OCI_INDEX = "application/vnd.oci.image.index.v1+json"


OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


OCI_ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json"  # withdrawn, but in use


OCI_CONFIG = "application/vnd.oci.image.config.v1+json"


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
