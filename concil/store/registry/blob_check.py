"""Checks that a registry has stored a blob as it was sent."""

from __future__ import annotations

import requests

from concil.errors import ProtocolViolation, RegistryError
from concil.oci.manifest import Digest
from concil.registry.client import RegistryClient


def has_blob(client: RegistryClient, digest: Digest, size: int) -> bool:
    """Return whether the registry has the blob with ``size`` bytes, or does not report its size."""
    stored_size = client.head_blob(digest, scopes=client.push_scopes)
    return stored_size is not None and stored_size in (-1, size)


def check_stored(
    client: RegistryClient, digest: Digest, size: int, response: requests.Response | None
) -> None:
    """Check that a blob exists whose digest the registry did not confirm.

    Args:
        response: to the closing PUT; None: it was lost, and a HEAD has confirmed the blob.
    Raises:
        ProtocolViolation: the registry does not have the blob.
    """
    if response is None:
        return
    stored_digest = response.headers.get("Docker-Content-Digest")
    if stored_digest != str(digest) and not has_blob(client, digest, size):
        raise ProtocolViolation(
            f"{repository_name(client)}: the registry accepted {digest}, but does not have it",
            remedy="its storage or a proxy in front of it loses content",
        )


def check_stored_size(client: RegistryClient, digest: Digest, size: int) -> None:
    """Check the size of a blob that the registry had with another size.

    Distribution 2.8 does not overwrite an existing file, whatever its content.

    Raises:
        RegistryError: the blob still has another size.
    """
    stored_size = client.head_blob(digest, scopes=client.push_scopes)
    if stored_size not in (-1, size):
        raise RegistryError(
            f"{repository_name(client)}: the registry accepted {size} bytes of {digest}, but "
            f"stored {stored_size or 0} bytes",
            remedy="its stored file is damaged: remove"
            f" blobs/{digest.algorithm}/{digest.hex[:2]}/{digest.hex} from the registry's"
            " storage, then try again",
        )


def repository_name(client: RegistryClient) -> str:
    """Return the name of a repository for messages, as host and path."""
    return f"{client.endpoint.host}/{client.repository}"
