"""The way of a request stays straight: few functions between a store and the HTTP library."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable

import pytest

from concil.http.exchange.response_head import HeadReader, ResponseHead
from concil.oci.manifest import Digest
from concil.oci.media_types import OCI_MANIFEST
from concil.registry.client import RegistryClient
from concil.registry.quirks import HostProfiles
from concil.store.registry.repository import RepositoryStore
from tests.support.scripted_server import ScriptedServer, reply

MANIFEST = (
    b'{"schemaVersion": 2, "mediaType": "%s", "layers": [],'
    b' "config": {"mediaType": "application/vnd.oci.empty.v1+json", "size": 2,'
    b' "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}}'
    % OCI_MANIFEST.encode()
)
DIGEST = str(Digest.from_bytes(MANIFEST))
MAX_FUNCTIONS = 9  # the caller of the store is the first of them


@pytest.fixture
def sent_from(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The functions of concil under way when a request was sent, outermost first."""
    stacks: list[list[str]] = []
    read_head = HeadReader.read_head

    def record(self: HeadReader) -> ResponseHead:
        names = [
            frame.f_code.co_qualname
            for frame, _ in traceback.walk_stack(sys._getframe(1))
            if str(frame.f_globals.get("__name__")).startswith("concil.")
        ]
        stacks.append(names[::-1])
        return read_head(self)

    monkeypatch.setattr(HeadReader, "read_head", record)
    return stacks


@pytest.mark.parametrize(
    ("method", "ask"),
    [
        ("HEAD", lambda store: store.find_manifest("1")),
        ("GET", lambda store: store.get_manifest("1")),
    ],
)
def test_a_manifest_is_requested_through_few_functions(
    server: ScriptedServer,
    client: RegistryClient,
    sent_from: list[list[str]],
    method: str,
    ask: Callable[[RepositoryStore], object],
) -> None:
    answer = reply(200, MANIFEST, Content_Type=OCI_MANIFEST, Docker_Content_Digest=DIGEST)
    server.respond(method, "/v2/.*", answer)
    store = RepositoryStore(client, name="app", host_profiles=HostProfiles())

    assert ask(store) is not None

    functions = sent_from[0]
    assert functions[0].endswith("_manifest")  # the store's
    assert functions[-1] == "exchange"
    # A GET has one more, which reads a manifest again after a mismatch.
    assert len(functions) + 1 <= MAX_FUNCTIONS + (method == "GET"), functions
