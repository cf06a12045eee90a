"""A repository of a registry as a store."""

from __future__ import annotations

import json
import threading

import pytest

from concil.errors import (
    Cancelled,
    ConnectionLost,
    NotFound,
    ProtocolViolation,
    RegistryDenied,
    SizeMismatch,
)
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest
from concil.oci.media_types import OCI_MANIFEST
from concil.registry.client import RegistryClient
from concil.registry.missing_tags import MissingTags
from concil.registry.quirks import HostProfiles
from concil.store.registry.repository import RepositoryStore
from tests.support.images import make_image
from tests.support.scripted_server import (
    NO_RESPONSE,
    ReceivedRequest,
    ScriptedResponse,
    ScriptedServer,
    reply,
)
from tests.support.tcp_peers import TIMEOUT

BLOB = b"0123456789" * 100
DIGEST = Digest.from_bytes(BLOB)
DESCRIBED = Descriptor("application/octet-stream", DIGEST, len(BLOB))
PATH = f"/v2/team/app/blobs/{DIGEST}"
IMAGE = make_image(1, (10,))


@pytest.fixture
def store(client: RegistryClient) -> RepositoryStore:
    return RepositoryStore(client, name="reg/team/app", host_profiles=HostProfiles())


def read(store: RepositoryStore, start: int = 0, stop: int | None = None) -> tuple[int, bytes]:
    """Where a blob begins, and all of it."""
    reader = store.open_blob(DESCRIBED, start, stop)
    try:
        content = b""
        buffer = memoryview(bytearray(300))
        while count := reader.readinto(buffer):
            content += bytes(buffer[:count])
        return reader.start, content
    finally:
        reader.close()


def ranged(seen: ReceivedRequest) -> ScriptedResponse:
    if "range" not in seen.headers:
        return reply(200, BLOB)
    first, _, last = seen.headers["range"].removeprefix("bytes=").partition("-")
    stop = int(last) + 1 if last else len(BLOB)
    piece = BLOB[int(first) : stop]
    return reply(206, piece, Content_Range=f"bytes {first}-{stop - 1}/{len(BLOB)}")


@pytest.mark.parametrize(("start", "stop"), [(0, None), (0, 1000), (300, None), (300, 400), (0, 1)])
def test_a_stretch_of_a_blob(
    server: ScriptedServer, store: RepositoryStore, start: int, stop: int | None
) -> None:
    server.respond("GET", PATH, ranged)

    assert read(store, start, stop) == (start, BLOB[start:stop])
    assert ("range" in server.requests[0].headers) == ((start, stop) not in {(0, None), (0, 1000)})


def test_a_registry_without_ranges_begins_at_the_beginning(
    server: ScriptedServer, store: RepositoryStore
) -> None:
    server.respond("GET", PATH, reply(200, BLOB))

    assert read(store, 300) == (0, BLOB)


def test_an_empty_blob_is_asked_for_without_a_range(
    server: ScriptedServer, store: RepositoryStore
) -> None:
    """To any range of it distribution 2.8 answers 416."""
    empty = Descriptor("application/octet-stream", Digest.from_bytes(b""), 0)
    server.respond("GET", "/v2/.*", reply(200))

    store.open_blob(empty, 0, 0).close()

    assert "range" not in server.requests[0].headers


def test_a_body_without_a_length_is_read(server: ScriptedServer, store: RepositoryStore) -> None:
    server.respond("GET", PATH, ScriptedResponse(200, BLOB, length=-1))

    assert read(store) == (0, BLOB)


@pytest.mark.parametrize("start", [0, 300])
def test_another_size_than_the_manifest_says_is_refused_before_it_is_read(
    server: ScriptedServer, store: RepositoryStore, start: int
) -> None:
    server.respond("GET", PATH, reply(200, BLOB + b"x"))

    with pytest.raises(SizeMismatch, match="sends 1001 bytes, not 1000"):
        store.open_blob(DESCRIBED, start)


@pytest.mark.parametrize("cut", ["fin", "rst"])
def test_what_came_before_a_cut_is_not_lost(
    server: ScriptedServer, store: RepositoryStore, cut: str
) -> None:
    action = "rst" if cut == "rst" else "fin"
    server.respond("GET", PATH, ScriptedResponse(200, BLOB[:400], length=len(BLOB), cut=action))  # type: ignore[arg-type]
    reader = store.open_blob(DESCRIBED)
    buffer = memoryview(bytearray(1000))
    got = 0

    try:
        while count := reader.readinto(buffer[got:]):
            got += count
    except ConnectionLost:
        pass
    finally:
        reader.close()

    assert bytes(buffer[:got]) == BLOB[:got]
    if cut == "fin":
        assert got == 400


def test_connections_come_back(server: ScriptedServer, store: RepositoryStore) -> None:
    server.respond("GET", PATH, ranged)

    for _ in range(4):
        assert read(store)[1] == BLOB

    assert server.connections == 1


def test_a_blob_that_is_left_in_the_middle_closes_its_connection(
    server: ScriptedServer, store: RepositoryStore
) -> None:
    server.respond("GET", PATH, ranged)
    reader = store.open_blob(DESCRIBED)
    reader.readinto(memoryview(bytearray(10)))
    reader.close()

    assert read(store)[1] == BLOB
    assert server.connections == 2


@pytest.mark.parametrize(
    ("answer", "there"),
    [
        (reply(200, BLOB), True),
        (reply(200, BLOB + b"x"), False),
        (ScriptedResponse(200, length=-1), True),
        (reply(404), False),
    ],
)
def test_has_blob(
    server: ScriptedServer, store: RepositoryStore, answer: ScriptedResponse, there: bool
) -> None:
    server.respond("HEAD", PATH, answer)

    assert store.has_blob(DESCRIBED) is there


def test_blob_size(server: ScriptedServer, store: RepositoryStore) -> None:
    server.respond("HEAD", PATH, reply(200, BLOB), reply(404), ScriptedResponse(200, length=-1))

    assert store.blob_size(DIGEST) == len(BLOB)
    assert store.blob_size(DIGEST) is None
    with pytest.raises(ProtocolViolation, match="does not return its size"):
        store.blob_size(DIGEST)


MOUNT = rf"/v2/team/app/blobs/uploads/\?mount={DIGEST}&from=team/base"


def test_a_mount_that_worked(server: ScriptedServer, store: RepositoryStore) -> None:
    server.respond("POST", MOUNT, reply(201))

    assert store.mount(DESCRIBED, "team/base").is_mounted


def test_the_session_of_a_mount_that_did_not_work_is_offered(
    server: ScriptedServer, store: RepositoryStore
) -> None:
    server.respond("POST", MOUNT, reply(202, Location="/session/1"))

    result = store.mount(DESCRIBED, "team/base")

    assert not result.is_mounted
    assert result.writer is not None
    result.writer.abort()
    assert [repr(seen) for seen in server.requests][1:] == ["DELETE /session/1"]


@pytest.mark.parametrize(
    "answer", [reply(400), reply(401), reply(403), reply(404), reply(503), NO_RESPONSE]
)
def test_trouble_with_a_mount_only_means_no(
    server: ScriptedServer, store: RepositoryStore, answer: ScriptedResponse
) -> None:
    server.respond("POST", MOUNT, answer)

    assert not store.mount(DESCRIBED, "team/base").is_mounted


def test_a_mount_whose_token_is_refused_only_means_no(
    server: ScriptedServer, store: RepositoryStore
) -> None:
    """Docker Hub and DigitalOcean refuse a token for a repository they do not know."""
    server.respond("POST", MOUNT, reply(401, WWW_Authenticate=f'Bearer realm="{server.url}/token"'))
    server.respond("GET", "/token.*", reply(400))

    assert not store.mount(DESCRIBED, "team/base").is_mounted


def test_manifests_go_and_come(server: ScriptedServer, store: RepositoryStore) -> None:
    server.respond("PUT", "/v2/team/app/manifests/(v1|latest)", reply(201))
    answer = reply(
        200, IMAGE.manifest, Content_Type=OCI_MANIFEST, Docker_Content_Digest=IMAGE.digest
    )
    server.respond("*", "/v2/team/app/manifests/(v1|latest)", answer)
    server.respond("PUT", "/v2/team/app/manifests/latest", reply(201))
    manifest = Manifest.parse(IMAGE.manifest, OCI_MANIFEST)

    store.put_manifest(manifest, "v1")
    store.put_manifest(manifest, "")
    found = store.find_manifest("")

    assert store.get_manifest("").body == IMAGE.manifest
    assert found is not None
    assert str(found.digest) == IMAGE.digest
    assert [seen.body for seen in server.matching_requests("PUT")] == [IMAGE.manifest] * 2


def test_a_manifest_is_deleted_by_its_digest(
    server: ScriptedServer, store: RepositoryStore
) -> None:
    answer = reply(
        200, IMAGE.manifest, Content_Type=OCI_MANIFEST, Docker_Content_Digest=IMAGE.digest
    )
    server.respond("HEAD", "/v2/team/app/manifests/v1", answer)
    server.respond("DELETE", f"/v2/team/app/manifests/{IMAGE.digest}", reply(202))

    store.delete_manifest("v1")

    assert len(server.matching_requests("DELETE")) == 1
    with pytest.raises(NotFound, match="v2 does not exist"):
        store.delete_manifest("v2")


def test_tags_and_names(server: ScriptedServer, store: RepositoryStore) -> None:
    server.respond("GET", "/v2/team/app/tags/list.*", reply(200, json.dumps({"tags": ["a", "b"]})))

    assert list(store.tags()) == ["a", "b"]
    assert store.host == store.mount_scope == server.host
    assert store.repository == "team/app"


def test_a_repository_that_is_denied(server: ScriptedServer, store: RepositoryStore) -> None:
    server.respond("HEAD", PATH, reply(401))

    with pytest.raises(RegistryDenied):
        store.has_blob(DESCRIBED)


OWN_MOUNT = rf"/v2/team/app/blobs/uploads/\?mount={DIGEST}&from=team/app"


@pytest.mark.parametrize(
    ("stored", "is_mounted", "lookup"),
    [(reply(200, BLOB), True, True), (reply(404), False, False), (reply(500), False, None)],
    ids=["confirmed", "a lie", "unknown"],
)
def test_a_head_confirms_a_blob_that_a_mount_has_found(
    server: ScriptedServer,
    store: RepositoryStore,
    stored: ScriptedResponse,
    is_mounted: bool,
    lookup: bool | None,
) -> None:
    server.respond("POST", OWN_MOUNT, reply(201))
    server.respond("HEAD", PATH, *[stored] * 10)

    assert store.mount(DESCRIBED, "team/app").is_mounted is is_mounted
    assert store.looks_up_by_mount is (lookup is not False)


def test_a_blob_of_another_size_is_sent_and_checked(
    server: ScriptedServer, store: RepositoryStore
) -> None:
    server.respond("POST", OWN_MOUNT, reply(201))
    server.respond("HEAD", PATH, reply(200, BLOB + b"x"))

    result = store.mount(DESCRIBED, "team/app")

    assert (result.is_mounted, result.writer) == (False, None)
    assert store.looks_up_by_mount


def test_a_session_in_the_query_of_a_mount_is_not_used(
    server: ScriptedServer, store: RepositoryStore
) -> None:
    """Early versions of zot join the session's name to the whole URL of the request."""
    server.respond("POST", OWN_MOUNT, reply(202, Location="?mount=a&from=b/1"))
    server.respond("POST", "/v2/team/app/blobs/uploads/", reply(202, Location="/session/1"))

    assert store.mount(DESCRIBED, "team/app").writer is None
    store.begin_blob(len(BLOB), DIGEST)

    assert not store.looks_up_by_mount


# Tags that a repository lacks --------------------------------------------------------------

LIST = r"/v2/team/app/tags/list\?n=1000"
UNKNOWN_NAME = b'{"errors": [{"code": "NAME_UNKNOWN", "message": "repository name not known"}]}'


def find_tags(store: RepositoryStore, *tags: str) -> list[bool]:
    """Return for each tag whether it exists."""
    return [store.find_existing(tag, is_probably_new=True) is not None for tag in tags]


def test_an_unknown_repository_is_asked_for_two_tags_and_for_its_list(
    server: ScriptedServer, store: RepositoryStore
) -> None:
    server.respond("HEAD", "/v2/team/app/manifests/.*", reply(404))
    server.respond("GET", LIST, reply(404, UNKNOWN_NAME))

    assert find_tags(store, "a", "b", "c", "d", "e") == [False] * 5
    assert [request.method for request in server.requests] == ["HEAD", "HEAD", "GET"]


def test_no_blob_of_an_unknown_repository_is_looked_up_again(
    server: ScriptedServer, store: RepositoryStore
) -> None:
    large = Descriptor("application/octet-stream", DIGEST, 1_000_000)
    server.respond("HEAD", "/v2/team/app/manifests/.*", reply(404))
    server.respond("GET", LIST, reply(404, UNKNOWN_NAME))
    server.respond("POST", OWN_MOUNT, reply(202, Location="/v2/team/app/blobs/uploads/1"))
    find_tags(store, "a", "b", "c")

    result = store.mount(large, "team/app")

    assert result.writer is not None
    assert not result.is_mounted
    assert [request.method for request in server.requests] == ["HEAD", "HEAD", "GET", "POST"]


def test_what_was_put_is_looked_up_by_its_name(
    server: ScriptedServer, store: RepositoryStore
) -> None:
    manifest = Manifest.parse(IMAGE.manifest, OCI_MANIFEST)
    stored = reply(
        200,
        IMAGE.manifest,
        Docker_Content_Digest=str(manifest.digest),
        Content_Type=OCI_MANIFEST,
    )
    server.respond("HEAD", "/v2/team/app/manifests/[ab]", reply(404))
    server.respond("GET", LIST, reply(200, b'{"tags": []}'))
    server.respond("PUT", "/v2/team/app/manifests/c", reply(201))
    server.respond("HEAD", "/v2/team/app/manifests/c", stored)
    assert find_tags(store, "a", "b", "c") == [False, False, False]

    store.put_manifest(manifest, "c")

    assert find_tags(store, "c", "d") == [True, False]


@pytest.mark.parametrize(
    "answer",
    [
        reply(404),
        reply(404, b'{"errors": [{"code": "UNSUPPORTED"}]}'),
        reply(403),
        reply(500),
        reply(200, b"[]"),
        reply(200, b'{"tags": ["x"]}', Link='</v2/team/app/tags/list?last=x>; rel="next"'),
        reply(200, json.dumps({"tags": [f"t{n}" for n in range(1000)]}).encode()),
    ],
    ids=["404", "404 with another code", "403", "500", "no object", "two pages", "cut"],
)
def test_without_a_list_every_tag_is_looked_up(
    server: ScriptedServer, store: RepositoryStore, answer: ScriptedResponse
) -> None:
    server.respond("HEAD", "/v2/team/app/manifests/.*", reply(404))
    server.respond("GET", LIST, answer)

    find_tags(store, "a", "b", "c", "d")

    methods = [request.method for request in server.requests]
    assert methods == ["HEAD", "HEAD", "GET", "HEAD", "HEAD"]


@pytest.mark.parametrize("present", ["a", "b"])
def test_no_list_is_requested_if_one_of_the_first_tags_exists(
    server: ScriptedServer, store: RepositoryStore, present: str
) -> None:
    digest = str(Digest.from_bytes(IMAGE.manifest))
    found = reply(200, IMAGE.manifest, Docker_Content_Digest=digest, Content_Type=IMAGE.media_type)
    server.respond("HEAD", f"/v2/team/app/manifests/{present}", found)
    server.respond("HEAD", f"/v2/team/app/manifests/[^{present}]", reply(404))

    find_tags(store, "a", "b", "c", "d")

    assert [request.method for request in server.requests] == ["HEAD"] * 4


def test_a_failed_lookup_is_raised_and_counts_as_none(
    server: ScriptedServer, store: RepositoryStore
) -> None:
    server.respond("HEAD", "/v2/team/app/manifests/a", reply(403))
    server.respond("HEAD", "/v2/team/app/manifests/[bcd]", reply(404))

    with pytest.raises(RegistryDenied):
        find_tags(store, "a")

    assert find_tags(store, "b", "c", "d") == [False] * 3


def test_a_cancelled_run_does_not_wait_for_the_first_tags(
    server: ScriptedServer, store: RepositoryStore
) -> None:
    store.client.endpoint.transport.cancel.set()
    missing_tags = MissingTags()
    asked, answer = threading.Semaphore(0), threading.Event()

    def look_up(_tag: str) -> None:
        asked.release()
        assert answer.wait(TIMEOUT)

    threads = [
        threading.Thread(target=missing_tags.find, args=(store.client, tag, look_up))
        for tag in ("a", "b")
    ]
    for thread in threads:
        thread.start()
    try:
        for _ in threads:
            assert asked.acquire(timeout=TIMEOUT)
        with pytest.raises(Cancelled):
            missing_tags.find(store.client, "c", look_up)
    finally:
        answer.set()
        for thread in threads:
            thread.join()
    assert server.requests == []
