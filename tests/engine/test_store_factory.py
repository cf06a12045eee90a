"""Stores are opened once, by what decides how they are reached."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from concil.auth.credentials.credentials import Credentials
from concil.config import TransferConfig
from concil.engine.store_factory import EndpointOptions, StoreFactory, blob_size, reference_in_store
from concil.errors import ConcilError
from concil.http.requests_session import TLSSettings
from concil.oci.address import parse_address
from concil.oci.manifest import Digest
from concil.server import EmbeddedRegistry
from concil.store.layout.store import LayoutStore
from concil.store.registry.repository import RepositoryStore
from tests.support.images import make_image, put_image, write_layout


def stores() -> StoreFactory:
    """Return stores with ordinary settings."""
    return StoreFactory(TransferConfig(), timeouts=None, cancel=threading.Event())


def remote(
    opened: StoreFactory, text: str, access: EndpointOptions | None = None
) -> RepositoryStore:
    """Open a repository."""
    store = opened.open_source(parse_address(text), access)
    assert isinstance(store, RepositoryStore)
    return store


def test_repositories_of_a_host_share_their_connections_and_tokens() -> None:
    with stores() as opened:
        one = remote(opened, "docker://host.example/one:v1")
        two = remote(opened, "docker://host.example/two:v2")
        other = remote(opened, "docker://other.example/one:v1")

        assert one.client.endpoint is two.client.endpoint
        assert one.client.endpoint is not other.client.endpoint
        assert one.client.endpoint.transport is other.client.endpoint.transport


def test_settings_of_tls_never_share_a_session() -> None:
    with stores() as opened:
        strict = remote(opened, "docker://host.example/one")
        lax = remote(
            opened, "docker://host.example/one", EndpointOptions(TLSSettings(verify=False))
        )

        assert strict.client.endpoint is not lax.client.endpoint
        assert strict.client.endpoint.transport.session is not (
            lax.client.endpoint.transport.session
        )


def test_users_never_share_a_token() -> None:
    with stores() as opened:
        nobody = remote(opened, "docker://host.example/one")
        me = remote(opened, "docker://me:secret@host.example/one")
        again = remote(
            opened,
            "docker://host.example/two",
            EndpointOptions(credentials=Credentials("me", "secret")),
        )

        assert nobody.client.endpoint is not me.client.endpoint
        assert me.client.endpoint is again.client.endpoint


def test_layout_is_opened_once_and_made_only_to_be_written(tmp_path: Path) -> None:
    address = parse_address(f"oci:{tmp_path}/layout:v1")
    with stores() as opened:
        with pytest.raises(ConcilError):
            opened.open_source(address)
        assert not (tmp_path / "layout").exists()

        made = opened.open_destination(address)

        assert isinstance(made, LayoutStore)
        assert opened.open_source(address) is made


@pytest.mark.parametrize(
    ("address", "reference"),
    [
        ("docker://host/app", "latest"),
        ("docker://host/app:v1", "v1"),
        (f"docker://host/app:v1@{Digest.from_bytes(b'x')}", str(Digest.from_bytes(b"x"))),
        ("oci:somewhere", ""),
        ("oci:somewhere:v1", "v1"),
    ],
)
def test_reference_of_an_address_is_what_its_store_is_asked_for(
    address: str, reference: str
) -> None:
    assert reference_in_store(parse_address(address)) == reference


def test_size_of_a_blob_is_known_in_either_kind_of_store(tmp_path: Path) -> None:
    image = make_image(1)
    write_layout(tmp_path / "layout", {"v1": image})
    with EmbeddedRegistry(tmp_path / "served") as registry, stores() as opened:
        put_image(registry.url, "app", "v1", image)
        for text in (f"{registry.url}/app:v1", f"oci:{tmp_path}/layout:v1"):
            store = opened.open_source(parse_address(text))
            for digest, blob in image.blobs.items():
                assert blob_size(store, Digest.parse(digest)) == len(blob)
            assert blob_size(store, Digest.from_bytes(b"missing")) is None
