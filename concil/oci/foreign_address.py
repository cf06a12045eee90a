"""Addresses as other tools write them: translated, or answered with a way to read them."""

from __future__ import annotations

from collections.abc import Callable

from concil.errors import InvalidReference, safe_repr
from concil.runtime.redaction import without_user


def translate_address(text: str) -> str:
    """Return an address of another tool in the form that concil uses; others are unchanged.

    ``ocidir://DIR:TAG`` of regctl is ``oci:DIR:TAG``. ``oci://HOST/REPOSITORY``, as helm and flux
    write it, is ``docker://HOST/REPOSITORY``.

    Raises:
        InvalidReference: concil cannot read or write such a place; the remedy names a way.
    Source: containers-transports(5); regctl, "Image References".
    """
    scheme, colon, rest = text.partition(":")
    if not colon:
        return text
    if scheme == "ocidir":
        return f"oci:{rest.removeprefix('//')}"
    if scheme == "oci" and rest.startswith("//") and not rest.startswith("///"):
        return _translate_helm_address(text, rest[2:])
    explain = _UNSUPPORTED.get(scheme)
    if explain is not None:
        raise InvalidReference(
            f"concil does not read or write {scheme}: {safe_repr(without_user(text))}",
            remedy=explain(rest.removeprefix("//") or "NAME"),
        )
    return text


def _translate_helm_address(text: str, rest: str) -> str:
    first = rest.rpartition("@")[0] or rest
    host = first.partition("/")[0]
    if "." in host or ":" in host or host == "localhost":
        return f"docker://{rest}"
    raise InvalidReference(
        f"neither a registry nor a directory: {safe_repr(without_user(text))}",
        remedy="write docker://HOST/REPOSITORY:TAG for a registry, or oci:DIR:TAG for a directory",
    )


def _explain_docker(name: str) -> str:
    return (
        f"read it with: docker save -o image.tar {_shown(name)}, and then "
        "docker-archive:image.tar; write docker-archive:image.tar, and then: docker load -i "
        "image.tar"
    )


def _explain_podman(name: str) -> str:
    return (
        f"read it with: podman save -o image.tar {_shown(name)}, and then "
        "docker-archive:image.tar; write docker-archive:image.tar, and then: podman load -i "
        "image.tar"
    )


def _explain_directory(name: str) -> str:
    path = _shown(name)
    return f"use an OCI layout, oci:{path}; skopeo converts: skopeo copy dir:{path} oci:{path}-oci"


def _explain_other(_name: str) -> str:
    return "skopeo and podman can copy it to an OCI layout: oci:DIR:TAG"


def _shown(name: str) -> str:
    return safe_repr(name).strip("'\"")


_UNSUPPORTED: dict[str, Callable[[str], str]] = {
    "docker-daemon": _explain_docker,
    "containers-storage": _explain_podman,
    "dir": _explain_directory,
    "atomic": _explain_other,
    "ostree": _explain_other,
    "sif": _explain_other,
    "tarball": _explain_other,
}
