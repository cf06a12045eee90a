"""Signatures, SBOMs and the like, made by hand, and how registries list them."""

from __future__ import annotations

import json

import requests

from tests.support.images import MANIFEST_ACCEPT, OCI, TIMEOUT, Image, digest_of, put_blob

EMPTY = b"{}"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
SIGNATURE = "application/vnd.example.signature.v1"
SBOM = "application/vnd.example.sbom.v1"


def make_referrer(
    subject: Image, content: bytes = b"signed", artifact_type: str = SIGNATURE
) -> Image:
    """Build an artifact that refers to a manifest: an empty config, one layer, annotations."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI.manifest,
        "artifactType": artifact_type,
        "config": _descriptor(EMPTY_TYPE, EMPTY),
        "layers": [_descriptor("application/octet-stream", content)],
        "subject": _descriptor(subject.media_type, subject.manifest),
        "annotations": {"org.example.made-by": "hand", "org.example.subject": subject.digest},
    }
    body = json.dumps(document, indent=1).encode()
    return Image(OCI.manifest, body, {digest_of(EMPTY): EMPTY, digest_of(content): content})


def make_cosign_artifact(content: bytes = b"simple signing") -> Image:
    """Build an artifact as cosign tags them: without a subject."""
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": [digest_of(content)]}}).encode()
    document = {
        "schemaVersion": 2,
        "mediaType": OCI.manifest,
        "config": _descriptor(OCI.config, config),
        "layers": [_descriptor("application/vnd.dev.cosign.simplesigning.v1+json", content)],
    }
    body = json.dumps(document).encode()
    return Image(OCI.manifest, body, {digest_of(config): config, digest_of(content): content})


def digest_tag(image: Image, suffix: str = "") -> str:
    """Return the tag that is named by an image's digest."""
    return image.digest.replace(":", "-") + suffix


def put_referrer(url: str, repository: str, referrer: Image) -> None:
    """Upload a referrer as a careful client does, also where the registry keeps no list."""
    for blob in referrer.blobs.values():
        put_blob(url, repository, blob)
    answer = requests.put(
        f"{url}/v2/{repository}/manifests/{referrer.digest}",
        data=referrer.manifest,
        headers={"Content-Type": referrer.media_type},
        timeout=TIMEOUT,
    )
    answer.raise_for_status()
    if "OCI-Subject" not in answer.headers:
        document = json.loads(referrer.manifest)
        entry = _descriptor(referrer.media_type, referrer.manifest)
        entry |= {name: document[name] for name in ("artifactType", "annotations")}
        tag = document["subject"]["digest"].replace(":", "-")
        put_referrers_index(
            url, repository, tag, [*list_tag_referrers(url, repository, tag), entry]
        )


def put_referrers_index(
    url: str, repository: str, tag: str, entries: list[dict[str, object]]
) -> None:
    """Write the index that lists referrers under a tag."""
    index = {"schemaVersion": 2, "mediaType": OCI.index, "manifests": entries}
    requests.put(
        f"{url}/v2/{repository}/manifests/{tag}",
        data=json.dumps(index).encode(),
        headers={"Content-Type": OCI.index},
        timeout=TIMEOUT,
    ).raise_for_status()


def list_tag_referrers(url: str, repository: str, tag: str) -> list[dict[str, object]]:
    """Return what the index under a tag lists; nothing if there is none."""
    answer = requests.get(
        f"{url}/v2/{repository}/manifests/{tag}",
        headers={"Accept": MANIFEST_ACCEPT},
        timeout=TIMEOUT,
    )
    return list(answer.json()["manifests"]) if answer.ok else []


def list_referrers(url: str, repository: str, digest: str) -> list[dict[str, object]]:
    """Return what refers to a manifest, as a client finds it."""
    answer = requests.get(f"{url}/v2/{repository}/referrers/{digest}", timeout=TIMEOUT)
    if answer.ok:
        return list(answer.json()["manifests"])
    return list_tag_referrers(url, repository, digest.replace(":", "-"))


def _descriptor(media_type: str, content: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}
