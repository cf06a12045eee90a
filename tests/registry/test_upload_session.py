"""Uploads: what is sent, which offset is believed, what is done about losses and refusals."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concil.config import MIB
from concil.errors import (
    ConcilError,
    ConnectionLost,
    DigestMismatch,
    ProtocolViolation,
    RegistryDenied,
    SessionLost,
    StatusError,
    UsageError,
)
from concil.fs.resume_state import WriterState
from concil.http.transport import Transport
from concil.oci.manifest import Digest
from concil.registry.client import RegistryClient
from concil.registry.endpoint import Endpoint
from concil.registry.quirks import HostProfiles, Quirks, Strategy, declared_quirks
from concil.registry.upload_session import UploadSession, parse_range
from concil.store.registry.blob_upload import MIN_CHUNK_SIZE
from tests.support.images import make_blob
from tests.support.quick_retries import FAST, UNTIMED
from tests.support.scripted_server import (
    NO_RESPONSE,
    Elsewhere,
    ReceivedRequest,
    ScriptedResponse,
    ScriptedServer,
    reply,
)
from tests.support.upload_server import (
    Bytes,
    Upload,
    Uploads,
    always,
    cut_after,
    lost_answer,
    source_that_breaks,
    told,
)

BLOB = make_blob(3, 3500)
DIGEST = str(Digest.from_bytes(BLOB))


@pytest.fixture
def uploads(server: ScriptedServer) -> Uploads:
    return Uploads(server)


def spans(uploads: Uploads) -> list[str | None]:
    """The ranges of all chunks that were sent."""
    return [seen.headers.get("content-range") for seen in uploads.server.matching_requests("PATCH")]


# What is sent ------------------------------------------------------------------------------


def test_a_large_blob_goes_in_chunks_of_one_size(uploads: Uploads, client: RegistryClient) -> None:
    upload = Upload(client, BLOB)

    assert str(upload.run()) == DIGEST

    assert uploads.blobs == {DIGEST: BLOB}
    assert uploads.asked() == "POST PATCH PATCH PATCH PATCH PUT"
    assert spans(uploads) == ["0-999", "1000-1999", "2000-2999", "3000-3499"]
    post, *patches, put = uploads.server.requests
    assert post.headers["content-length"] == put.headers["content-length"] == "0"
    for seen in patches:
        assert seen.headers["content-type"] == "application/octet-stream"
        assert seen.headers["content-length"] == str(len(seen.body))
        assert "transfer-encoding" not in seen.headers
    assert upload.writer is not None
    assert upload.writer.response is not None
    assert upload.writer.response.status_code == 201


def test_a_small_blob_goes_in_one_put(uploads: Uploads, client: RegistryClient) -> None:
    Upload(client, BLOB, chunk=len(BLOB)).run()

    assert uploads.blobs == {DIGEST: BLOB}
    assert uploads.asked() == "POST PUT"
    assert "content-range" not in uploads.server.requests[1].headers


def test_an_empty_blob(uploads: Uploads, client: RegistryClient) -> None:
    Upload(client, b"").run()

    assert uploads.blobs == {str(Digest.from_bytes(b"")): b""}
    assert uploads.asked() == "POST PUT"
    assert "transfer-encoding" not in uploads.server.requests[1].headers


@pytest.mark.parametrize("size", [1, 999, 1000, 1001, 2000])
def test_sizes_around_a_chunk(uploads: Uploads, client: RegistryClient, size: int) -> None:
    Upload(client, BLOB[:size]).run()

    assert list(uploads.blobs.values()) == [BLOB[:size]]


def test_a_digest_that_becomes_known_with_the_last_byte(
    uploads: Uploads, client: RegistryClient
) -> None:
    assert str(Upload(client, BLOB[:500], known=False).run()) == str(Digest.from_bytes(BLOB[:500]))
    assert uploads.asked() == "POST PATCH PUT"


@pytest.mark.parametrize(
    "location",
    [
        pytest.param(lambda url, path: path, id="relative"),
        pytest.param(lambda url, path: url + path, id="absolute"),
        pytest.param(lambda url, path: url.removeprefix("http:") + path, id="without a scheme"),
        pytest.param(lambda url, path: url.removeprefix("http://") + path, id="host and path"),
    ],
)
def test_locations(uploads: Uploads, client: RegistryClient, location: object) -> None:
    assert callable(location)
    uploads.location = lambda path: str(location(uploads.server.url, path))

    Upload(client, BLOB).run()

    assert uploads.blobs == {DIGEST: BLOB}
    # The query of each is kept byte for byte, the digest comes behind it.
    assert uploads.server.requests[-1].path == f"/session/1?_state=5%2Bx&digest={DIGEST}"


def test_a_session_without_a_location_is_a_violation(
    uploads: Uploads, client: RegistryClient
) -> None:
    uploads.trouble("POST", always(reply(202)))

    with pytest.raises(ProtocolViolation, match="has no Location header"):
        Upload(client, BLOB).run()


def test_an_answer_without_a_location_leaves_the_old_one(
    uploads: Uploads, client: RegistryClient
) -> None:
    def taken(seen: ReceivedRequest) -> ScriptedResponse:
        uploads.held += seen.read()
        return reply(202)

    uploads.trouble("PATCH", taken, taken)

    Upload(client, BLOB).run()

    assert uploads.blobs == {DIGEST: BLOB}
    assert {seen.path for seen in uploads.server.matching_requests("PATCH")[:3]} == {
        "/session/1?_state=1%2Bx"
    }


def test_the_opening_is_repeated(uploads: Uploads, client: RegistryClient) -> None:
    uploads.trouble("POST", always(reply(503)), always(NO_RESPONSE))

    Upload(client, BLOB).run()

    assert uploads.asked().startswith("POST POST POST PATCH")


# Which offset is believed ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "held"),
    [
        (None, None),
        ("", None),
        ("0-0", 0),
        ("0--1", 0),
        ("bytes=0--1", 0),
        ("0-1", 2),
        (" 0-999 ", 1000),
        ("bytes=0-999", 1000),
        ("1-999", None),
        ("bytes 0-999", None),
        ("0-", None),
        ("0-9x", None),
        ("-5", None),
    ],
)
def test_a_range_says_how_much_is_held(header: str | None, held: int | None) -> None:
    assert parse_range(header) == held


@UNTIMED
@given(st.text(max_size=30) | st.from_regex(r"(bytes=)?0-[-0-9]{0,12}", fullmatch=True))
def test_no_range_raises(header: str) -> None:
    held = parse_range(header)

    assert held is None or held >= 0


@pytest.mark.parametrize(
    "patch_range",
    [
        pytest.param(lambda begin, held: told(held), id="the specification's"),
        pytest.param(lambda begin, held: None, id="missing"),
        pytest.param(lambda begin, held: "0-999", id="ECR: stuck at the first chunk"),
        pytest.param(lambda begin, held: told(held - begin), id="zot: of this request only"),
        pytest.param(lambda begin, held: f"0-{held}", id="one too many"),
        pytest.param(lambda begin, held: "nonsense", id="nonsense"),
        pytest.param(lambda begin, held: "bytes=" + told(held), id="Quay"),
    ],
)
def test_a_chunk_that_was_accepted_counts_whole(
    uploads: Uploads, client: RegistryClient, patch_range: object
) -> None:
    assert callable(patch_range)
    uploads.patch_range = patch_range

    Upload(client, BLOB).run()

    assert uploads.blobs == {DIGEST: BLOB}
    assert uploads.asked() == "POST PATCH PATCH PATCH PATCH PUT"


def test_a_chunk_of_which_a_part_was_kept_goes_on_there(
    uploads: Uploads, client: RegistryClient
) -> None:
    def part(seen: ReceivedRequest) -> ScriptedResponse:
        uploads.held += seen.read()[:300]
        return uploads.answer(202, told(len(uploads.held)))

    uploads.trouble("PATCH", lambda _: None, part)

    Upload(client, BLOB).run()

    assert uploads.blobs == {DIGEST: BLOB}
    assert spans(uploads)[2] == "1300-2299"


def test_after_a_loss_it_goes_on_where_the_registry_says(
    uploads: Uploads, client: RegistryClient
) -> None:
    uploads.trouble("PATCH", lambda _: None, cut_after(uploads, 400))

    Upload(client, BLOB).run()

    assert uploads.blobs == {DIGEST: BLOB}
    assert uploads.asked() == "POST PATCH PATCH GET PATCH PATCH PATCH PUT"
    assert spans(uploads)[2] == "1400-2399"  # on the Location of the GET: another is a 404


def test_a_lost_answer_is_not_sent_again(uploads: Uploads, client: RegistryClient) -> None:
    uploads.trouble("PATCH", lambda _: None, lost_answer(uploads))
    uploads.troubles["GET"] = [
        lambda _: reply(204, Range=told(len(uploads.held)), Location=uploads.here())
    ]

    Upload(client, BLOB).run()

    assert uploads.blobs == {DIGEST: BLOB}
    assert spans(uploads)[2] == "2000-2999"


@pytest.mark.parametrize("prefix", ["", "bytes="])
def test_quay_counts_one_too_many_and_sends_no_location(
    uploads: Uploads, client: RegistryClient, prefix: str
) -> None:
    def quay(_seen: ReceivedRequest) -> ScriptedResponse:
        return reply(204, Range=f"{prefix}0-{len(uploads.held)}")

    uploads.trouble("PATCH", lambda _: None, cut_after(uploads, 1000))
    uploads.trouble("GET", quay)

    Upload(client, BLOB).run()

    assert uploads.blobs == {DIGEST: BLOB}
    assert spans(uploads)[2] == "2000-2999"
    assert uploads.sessions == 1


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(reply(404), id="gone"),
        pytest.param(reply(400), id="Gitea's older ways"),
        pytest.param(reply(405), id="not offered"),
        pytest.param(reply(416), id="refused"),
        pytest.param(reply(500), id="poisoned"),
        pytest.param(reply(204), id="no Range"),
        pytest.param(reply(204, Range="nonsense"), id="no range"),
        pytest.param(reply(204, Range="0-499"), id="less than was acknowledged"),
        pytest.param(reply(204, Range="0-2500", Location="/session/1"), id="more than was sent"),
        pytest.param(reply(204, Range="0-0"), id="nothing"),
    ],
)
def test_a_session_that_makes_no_sense_is_begun_again(
    uploads: Uploads, client: RegistryClient, answer: ScriptedResponse
) -> None:
    uploads.trouble("PATCH", lambda _: None, cut_after(uploads, 400))
    uploads.trouble("GET", *[always(answer)] * 6)

    Upload(client, BLOB).run()

    assert uploads.blobs == {DIGEST: BLOB}
    assert uploads.sessions == 2
    assert spans(uploads)[2] == "0-999"


def test_a_status_that_is_denied_is_a_denial(uploads: Uploads, client: RegistryClient) -> None:
    uploads.trouble("PATCH", cut_after(uploads, 400))
    uploads.trouble("GET", always(reply(403)))

    with pytest.raises(RegistryDenied):
        Upload(client, BLOB).run()


# Sessions that are lost --------------------------------------------------------------------


def test_a_session_that_is_gone_is_begun_again(uploads: Uploads, client: RegistryClient) -> None:
    uploads.trouble("PATCH", lambda _: None, always(reply(404)))

    Upload(client, BLOB).run()

    assert uploads.blobs == {DIGEST: BLOB}
    assert uploads.sessions == 2


def test_sessions_are_lost_only_so_often(uploads: Uploads, client: RegistryClient) -> None:
    uploads.trouble("PATCH", *[always(reply(404))] * 100)

    with pytest.raises(SessionLost):
        Upload(client, BLOB).run()

    assert uploads.sessions <= FAST.max_lost_sessions + 1
    assert len(uploads.server.matching_requests("PATCH")) <= FAST.max_lost_sessions + 1


def test_bytes_gained_in_lost_sessions_are_no_progress(
    uploads: Uploads, client: RegistryClient
) -> None:
    uploads.trouble("PATCH", *[lambda _: None, always(reply(404))] * 100)

    with pytest.raises(SessionLost):
        Upload(client, BLOB).run()

    assert uploads.sessions <= FAST.max_lost_sessions + 2  # the first came further than none


def test_losses_without_progress_come_to_an_end(uploads: Uploads, client: RegistryClient) -> None:
    uploads.trouble("PATCH", *[cut_after(uploads, 0)] * 100)

    with pytest.raises(ConnectionLost):
        Upload(client, BLOB).run()

    assert len(uploads.server.matching_requests("PATCH")) == 6


def test_progress_makes_up_for_losses(uploads: Uploads, client: RegistryClient) -> None:
    uploads.trouble("PATCH", *[cut_after(uploads, 100)] * 30)

    Upload(client, BLOB).run()

    assert uploads.blobs == {DIGEST: BLOB}
    assert uploads.sessions == 1


def test_an_upload_that_failed_is_kept_for_a_later_try(
    uploads: Uploads, client: RegistryClient
) -> None:
    uploads.trouble("PATCH", always(reply(403)))

    with pytest.raises(RegistryDenied):
        Upload(client, BLOB).run()

    assert uploads.asked() == "POST PATCH"


@pytest.mark.parametrize("outcome", [reply(204), reply(405), reply(404), reply(503), NO_RESPONSE])
def test_the_outcome_of_cancelling_is_of_no_interest(
    uploads: Uploads, client: RegistryClient, outcome: ScriptedResponse
) -> None:
    session = UploadSession.start(client)
    uploads.trouble("DELETE", always(outcome))

    session.cancel()

    assert uploads.asked() == "POST DELETE"


def test_always_503_costs_tries_that_add(uploads: Uploads, client: RegistryClient) -> None:
    uploads.trouble("PATCH", *[always(reply(503))] * 100)

    with pytest.raises(StatusError, match="503"):
        Upload(client, BLOB).run()

    assert len(uploads.server.matching_requests("PATCH")) == 6
    assert len(uploads.server.matching_requests("GET")) == 5
    assert len(uploads.server.matching_requests()) <= 14


def test_a_source_that_is_lost_uploads_nothing(uploads: Uploads, client: RegistryClient) -> None:
    with pytest.raises(ConnectionLost, match="the source is gone"):
        Upload(client, BLOB).run(source_that_breaks(BLOB, 1500))

    assert not uploads.blobs
    assert not uploads.server.matching_requests("PUT")


def test_wrong_bytes_are_not_committed(uploads: Uploads, client: RegistryClient) -> None:
    with pytest.raises(DigestMismatch):
        Upload(client, BLOB).run(Bytes(BLOB[:-1] + b"?"))

    assert not uploads.blobs
    assert not uploads.server.matching_requests("PUT")
    assert uploads.asked().endswith("DELETE")


# The closing PUT ---------------------------------------------------------------------------


def test_a_lost_answer_to_the_put_is_cleared_up_by_a_head(
    uploads: Uploads, client: RegistryClient
) -> None:
    uploads.trouble("PUT", lost_answer(uploads))
    upload = Upload(client, BLOB)

    upload.run()

    assert uploads.asked().endswith("PUT HEAD")
    assert upload.writer is not None
    assert upload.writer.response is None


def test_a_lost_put_is_repeated(uploads: Uploads, client: RegistryClient) -> None:
    uploads.trouble("PUT", always(NO_RESPONSE))

    Upload(client, BLOB).run()

    assert uploads.blobs == {DIGEST: BLOB}
    assert uploads.asked().endswith("PUT HEAD GET PUT")
    assert len(uploads.server.matching_requests("PATCH")) == 4


@pytest.mark.parametrize("whole", [True, False])
def test_a_404_to_the_put_may_mean_that_it_was_done(
    uploads: Uploads, client: RegistryClient, whole: bool
) -> None:
    def done(seen: ReceivedRequest) -> ScriptedResponse:
        uploads._put(seen)
        return reply(404, '{"errors": [{"code": "BLOB_UPLOAD_UNKNOWN"}]}')

    uploads.trouble("PUT", done)

    Upload(client, BLOB, chunk=len(BLOB) if whole else 1000).run()

    assert uploads.asked().endswith("PUT HEAD")
    assert uploads.sessions == 1


@pytest.mark.parametrize("whole", [True, False])
def test_a_404_to_the_put_begins_again_if_nothing_is_there(
    uploads: Uploads, client: RegistryClient, whole: bool
) -> None:
    uploads.trouble("PUT", always(reply(404)))

    Upload(client, BLOB, chunk=len(BLOB) if whole else 1000).run()

    assert uploads.blobs == {DIGEST: BLOB}
    assert uploads.sessions == (2 if whole else 1)  # a session that answers is gone on with


def test_a_blob_of_another_size_is_not_ours(uploads: Uploads, client: RegistryClient) -> None:
    uploads.trouble("PUT", always(NO_RESPONSE))
    uploads.trouble("HEAD", always(reply(200, b"other")))

    Upload(client, BLOB).run()

    assert len(uploads.server.matching_requests("PUT")) == 2


def test_a_500_to_the_put_asks_for_the_blob(uploads: Uploads, client: RegistryClient) -> None:
    def done(seen: ReceivedRequest) -> ScriptedResponse:
        uploads._put(seen)
        return reply(502)

    uploads.trouble("PUT", done)

    Upload(client, BLOB).run()

    assert uploads.asked().endswith("PUT HEAD")


@pytest.mark.parametrize("whole", [True, False])
def test_other_bytes_than_the_digest_are_a_mismatch(
    uploads: Uploads, client: RegistryClient, whole: bool
) -> None:
    refused = always(reply(400, '{"errors": [{"code": "DIGEST_INVALID"}]}'))
    uploads.trouble("PUT", *[refused] * 10)

    with pytest.raises(DigestMismatch, match="content that does not match"):
        Upload(client, BLOB, chunk=len(BLOB) if whole else 1000).run()


def test_another_400_is_what_it_is(uploads: Uploads, client: RegistryClient) -> None:
    uploads.trouble("PUT", always(reply(400, '{"errors": [{"code": "SIZE_INVALID"}]}')))

    with pytest.raises(StatusError, match="SIZE_INVALID"):
        Upload(client, BLOB).run()


def test_the_registrys_own_digest_is_compared(uploads: Uploads, client: RegistryClient) -> None:
    other = str(Digest.from_bytes(b"other"))
    uploads.trouble("PUT", *[always(reply(201, Docker_Content_Digest=other))] * 2)

    with pytest.raises(DigestMismatch, match="stored") as caught:
        Upload(client, BLOB).run()

    assert "proxy" in caught.value.remedy


def stores(
    uploads: Uploads, answer: ScriptedResponse
) -> Callable[[ReceivedRequest], ScriptedResponse]:
    """Take the blob, and give an answer that is not the usual one."""

    def take(_: ReceivedRequest) -> ScriptedResponse:
        uploads.blobs[str(Digest.from_bytes(BLOB))] = BLOB
        return answer

    return take


@pytest.mark.parametrize("header", [str(Digest.from_bytes(b"x", "sha512")), "nonsense", ""])
def test_where_the_digest_of_the_answer_says_nothing_the_blob_is_asked_for(
    uploads: Uploads, client: RegistryClient, header: str
) -> None:
    uploads.trouble("PUT", stores(uploads, reply(201, Docker_Content_Digest=header)))

    Upload(client, BLOB).run()

    assert uploads.asked().endswith("PUT HEAD")


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_statuses_that_close_an_upload(
    uploads: Uploads, client: RegistryClient, status: int
) -> None:
    uploads.trouble("PUT", stores(uploads, reply(status)))

    Upload(client, BLOB).run()


# Redirects ---------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirected_chunk_is_sent_again_where_it_belongs(
    uploads: Uploads, client: RegistryClient, status: int
) -> None:
    uploads.trouble("PATCH", lambda _: uploads.answer(status))

    Upload(client, BLOB).run()

    assert uploads.blobs == {DIGEST: BLOB}
    assert uploads.sessions == 1


def test_chunks_at_another_host_carry_no_credentials(
    uploads: Uploads, storage: ScriptedServer, endpoint: Endpoint, client: RegistryClient
) -> None:
    there = Uploads(storage)
    there.sessions = there.state = 1
    uploads.trouble("POST", always(reply(202, Location=f"{storage.url}{there.here()}")))
    endpoint.transport.session.headers["X-Trace"] = "kept"

    Upload(client, BLOB).run()

    assert there.blobs == {DIGEST: BLOB}
    assert not any("authorization" in seen.headers for seen in storage.requests)


# What is learned ---------------------------------------------------------------------------


def too_large(limit: int, status: int) -> list[object]:
    def trouble(seen: ReceivedRequest) -> ScriptedResponse | None:
        if int(seen.headers["content-length"]) > limit:
            seen.read()
            return reply(status, "too large")
        return None

    return [trouble] * 100


@pytest.mark.parametrize("status", [413, 416])
def test_a_chunk_that_is_too_large_is_halved(
    uploads: Uploads, client: RegistryClient, status: int
) -> None:
    """GHCR answers 416 where others answer 413."""
    blob = make_blob(4, 9 * MIB)
    uploads.trouble("PATCH", *too_large(2 * MIB, status))  # type: ignore[arg-type]
    knowledge = HostProfiles()

    Upload(client, blob, chunk=8 * MIB, knowledge=knowledge).run()
    assert list(uploads.blobs.values()) == [blob]
    refused = len(uploads.server.matching_requests("PATCH"))
    Upload(client, blob, chunk=8 * MIB, knowledge=knowledge).run()

    # Sessions that the lessons ended are not left behind.
    assert len(uploads.server.matching_requests("DELETE")) == 2
    # The host is known by then: the second upload meets no refusal.
    assert len(uploads.server.matching_requests("PATCH")) == refused + 5
    assert knowledge.quirks_for(uploads.server.host).max_chunk_size == 2 * MIB


def test_a_blob_that_is_too_large_for_a_put_goes_in_chunks(
    uploads: Uploads, client: RegistryClient
) -> None:
    blob = make_blob(4, 6 * MIB)
    uploads.trouble("PUT", *too_large(4 * MIB, 413))  # type: ignore[arg-type]
    knowledge = HostProfiles()

    Upload(client, blob, chunk=10 * MIB, knowledge=knowledge).run()

    assert list(uploads.blobs.values()) == [blob]
    assert knowledge.quirks_for(uploads.server.host).strategy is Strategy.CHUNKS
    assert len(uploads.server.matching_requests("PATCH")) == 2
    assert len(uploads.server.matching_requests("DELETE")) == 1


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_host_that_takes_no_byte_is_given_up(
    uploads: Uploads, client: RegistryClient, method: str
) -> None:
    blob = make_blob(4, MIN_CHUNK_SIZE + (0 if method == "PUT" else 1))
    uploads.trouble("PUT", *too_large(0, 413))  # type: ignore[arg-type]
    uploads.trouble("PATCH", *too_large(0, 413))  # type: ignore[arg-type]

    with pytest.raises(StatusError, match="413"):
        Upload(client, blob, chunk=MIN_CHUNK_SIZE).run()

    cancelled = len(uploads.server.matching_requests("DELETE"))
    assert len(uploads.server.requests) - cancelled < 10


@pytest.mark.parametrize("status", [405, 501])
def test_a_host_without_chunks_gets_one_put(
    uploads: Uploads, client: RegistryClient, status: int
) -> None:
    uploads.trouble("PATCH", *[always(reply(status))] * 100)
    knowledge = HostProfiles()

    Upload(client, BLOB, knowledge=knowledge).run()
    Upload(client, BLOB, knowledge=knowledge).run()

    assert uploads.blobs == {DIGEST: BLOB}
    assert len(uploads.server.matching_requests("PATCH")) == 1
    assert len(uploads.server.matching_requests("DELETE")) == 1


def test_a_host_without_chunks_takes_no_blob_of_an_unknown_digest(
    uploads: Uploads, client: RegistryClient
) -> None:
    knowledge = HostProfiles()
    knowledge.set_strategy(uploads.server.host, Strategy.MONOLITHIC)

    with pytest.raises(UsageError, match="requires the digest"):
        Upload(client, BLOB, knowledge=knowledge, known=False).run()


def test_a_416_for_a_wrong_offset_is_no_lesson(uploads: Uploads, client: RegistryClient) -> None:
    def kept_a_part(seen: ReceivedRequest) -> ScriptedResponse:
        uploads.held += seen.read()[:300]
        return uploads.answer(416, told(len(uploads.held)))

    uploads.trouble("PATCH", lambda _: None, kept_a_part)
    knowledge = HostProfiles()

    Upload(client, BLOB, knowledge=knowledge).run()

    assert uploads.blobs == {DIGEST: BLOB}
    assert spans(uploads)[2] == "1300-2299"
    assert uploads.sessions == 1
    assert knowledge.quirks_for(uploads.server.host).max_chunk_size is None


@pytest.mark.parametrize("kept", [0, 300])
def test_a_416_costs_one_request_for_the_offset(
    uploads: Uploads, client: RegistryClient, kept: int
) -> None:
    """The second chunk is refused; the session has ``kept`` bytes of it."""

    def refuse(seen: ReceivedRequest) -> ScriptedResponse:
        uploads.held += seen.read()[:kept]
        return uploads.answer(416)

    uploads.trouble("PATCH", lambda _: None, refuse)

    Upload(client, BLOB).run()

    assert uploads.blobs == {DIGEST: BLOB}
    assert uploads.asked() == "POST PATCH PATCH GET PATCH PATCH PATCH PUT"


def test_a_lost_connection_after_a_416_is_followed_by_another_status(
    uploads: Uploads, client: RegistryClient
) -> None:
    def refuse(seen: ReceivedRequest) -> ScriptedResponse:
        seen.read()
        return uploads.answer(416)

    uploads.trouble("PATCH", lambda _: None, refuse, cut_after(uploads, 300))

    Upload(client, BLOB).run()

    assert uploads.blobs == {DIGEST: BLOB}
    assert uploads.asked() == "POST PATCH PATCH GET PATCH GET PATCH PATCH PATCH PUT"


def test_a_chunk_that_was_accepted_and_not_kept_is_a_new_start(
    uploads: Uploads, client: RegistryClient
) -> None:
    def forgets(seen: ReceivedRequest) -> ScriptedResponse:
        seen.read()
        return uploads.answer(202, told(len(uploads.held)))

    uploads.trouble("PATCH", lambda _: None, forgets)

    Upload(client, BLOB).run()

    assert uploads.blobs == {DIGEST: BLOB}
    assert uploads.sessions == 2


def test_where_a_416_ends_the_session_smaller_chunks_begin_again(
    uploads: Uploads, client: RegistryClient
) -> None:
    uploads.trouble("PATCH", *too_large(2 * MIB, 416))  # type: ignore[arg-type]
    uploads.trouble("GET", always(reply(404)))
    blob = make_blob(4, 5 * MIB)

    Upload(client, blob, chunk=4 * MIB).run()

    assert list(uploads.blobs.values()) == [blob]
    assert uploads.sessions == 2


def test_a_streamed_upload_has_no_ranges(uploads: Uploads, client: RegistryClient) -> None:
    knowledge = HostProfiles()
    knowledge.set_strategy(uploads.server.host, Strategy.STREAM)

    Upload(client, BLOB, knowledge=knowledge).run()

    assert uploads.blobs == {DIGEST: BLOB}
    assert spans(uploads) == [None]


@pytest.mark.parametrize(
    ("announced", "chunks"),
    [
        ({"OCI_Chunk_Min_Length": str(2 * MIB)}, 2),
        ({"OCI_Chunk_Max_Length": str(MIB // 2)}, 8),
        ({"OCI_Chunk_Min_Length": "nonsense", "OCI_Chunk_Max_Length": "-5"}, 4),
        ({"OCI_Chunk_Min_Length": str(1 << 40), "OCI_Chunk_Max_Length": "1"}, 4),
        ({"OCI_Chunk_Min_Length": "\xb2"}, 4),
    ],
)
def test_what_a_host_announces_about_chunks_counts(
    uploads: Uploads, client: RegistryClient, announced: dict[str, str], chunks: int
) -> None:
    blob = make_blob(5, 4 * MIB)
    uploads.post_headers = announced

    Upload(client, blob, chunk=MIB).run()

    assert list(uploads.blobs.values()) == [blob]
    assert len(uploads.server.matching_requests("PATCH")) == chunks


GHCR = Quirks(max_chunk_size=4 * MIB, lookup_by_mount=False, max_uploads=4)
ECR = Quirks(
    Strategy.CHUNKS_LAST_IN_PUT,
    10 * MIB,
    5 * MIB,
    ignore_range_header=True,
    lookup_by_mount=False,
    max_uploads=1,
)


@pytest.mark.parametrize(
    ("host", "quirks"),
    [
        ("ghcr.io", GHCR),
        ("ghcr.io:443", GHCR),
        ("europe-west1-docker.pkg.dev", Quirks(Strategy.MONOLITHIC, lookup_by_mount=False)),
        ("gcr.io", Quirks(Strategy.MONOLITHIC, lookup_by_mount=False)),
        ("eu.gcr.io", Quirks(Strategy.MONOLITHIC, lookup_by_mount=False)),
        ("me.azurecr.io", Quirks(max_chunk_size=20 * MIB, lookup_by_mount=False)),
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", ECR),
        ("public.ecr.aws", ECR),
        ("reg.example", Quirks()),
        ("ghcr.io.evil.example", Quirks()),
        ("[::1]:5000", Quirks()),
    ],
)
def test_hosts_are_known_by_their_name(host: str, quirks: Quirks) -> None:
    assert declared_quirks(host) == quirks


@pytest.mark.parametrize(
    ("host", "asked"),
    [
        ("ghcr.io", "POST PATCH PATCH PATCH PUT"),
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", "POST PATCH PUT"),
        ("gcr.io", "POST PUT"),
        ("me.azurecr.io", "POST PATCH PATCH PUT"),
    ],
)
def test_a_host_gets_what_its_name_says(
    uploads: Uploads, transport: Transport, host: str, asked: str
) -> None:
    transport.session.mount("https://", Elsewhere(uploads.server))
    client = RegistryClient(Endpoint(transport, f"https://{host}"), "team/app", policy=FAST)
    blob = make_blob(6, 12 * MIB)
    if "dkr.ecr" in host:
        uploads.patch_range = lambda begin, held: f"0-{10 * MIB - 1}"

    Upload(client, blob, chunk=10 * MIB).run()

    assert list(uploads.blobs.values()) == [blob]
    assert uploads.asked() == asked
    last = uploads.server.requests[-1]
    if "dkr.ecr" in host:
        assert last.headers["content-range"] == f"{10 * MIB}-{12 * MIB - 1}"


def test_what_is_learned_is_kept_by_host() -> None:
    knowledge = HostProfiles()
    knowledge.set_max_chunk_size("a", 5 * MIB)
    knowledge.set_max_chunk_size("a", 7 * MIB)
    knowledge.distrust_range("a")
    knowledge.set_chunk_size_range("b", None, 3 * MIB)

    assert knowledge.quirks_for("a") == Quirks(max_chunk_size=5 * MIB, ignore_range_header=True)
    assert knowledge.quirks_for("b").chunk_size(10 * MIB) == 3 * MIB
    assert knowledge.quirks_for("c") == Quirks()


# Another process ---------------------------------------------------------------------------


def test_a_session_is_gone_on_with_by_another_process(
    uploads: Uploads, client: RegistryClient
) -> None:
    uploads.sessions, uploads.held = 1, BLOB[:1200]
    state = WriterState(uploads.server.url + uploads.here(), 1000, 1000)
    source = Bytes(BLOB)

    Upload(client, BLOB, resume=state).run(source)

    assert uploads.blobs == {DIGEST: BLOB}
    assert uploads.asked() == "GET PATCH PATCH PATCH PUT"
    assert spans(uploads)[0] == "1200-2199"
    assert source.read == len(BLOB) - 1200  # what the registry has is not read again


@pytest.mark.parametrize("answer", [reply(404), reply(204, Range="0-499"), reply(403)])
def test_a_session_that_is_gone_is_a_new_start(
    uploads: Uploads, client: RegistryClient, answer: ScriptedResponse
) -> None:
    uploads.trouble("GET", always(answer))
    state = WriterState(uploads.server.url + "/session/9", 1000, 1000)

    Upload(client, BLOB, resume=state).run()

    assert uploads.blobs == {DIGEST: BLOB}
    assert uploads.asked().startswith("GET POST PATCH")


def test_what_can_be_gone_on_with_is_remembered(uploads: Uploads, client: RegistryClient) -> None:
    store = Upload(client, BLOB).store()
    writer = store.begin_blob(len(BLOB), Digest.from_bytes(BLOB))
    small = store.begin_blob(10, Digest.from_bytes(BLOB[:10]))

    state = writer.state()
    writer.close()

    assert state is not None
    assert (state.offset, state.chunk_size) == (0, 1000)
    assert small.state() is None  # one PUT cannot be gone on with
    assert writer.state() is None
    assert not uploads.server.matching_requests("DELETE")


def test_a_writer_that_was_closed_does_not_write(uploads: Uploads, client: RegistryClient) -> None:
    writer = Upload(client, BLOB).store().begin_blob(len(BLOB), Digest.from_bytes(BLOB))
    writer.close()

    with pytest.raises(SessionLost):
        writer.commit(Digest.from_bytes(BLOB))


def test_a_writer_that_is_done_stays_done(uploads: Uploads, client: RegistryClient) -> None:
    upload = Upload(client, BLOB[:100])
    digest = upload.run()
    writer = upload.writer
    assert writer is not None
    asked = uploads.asked()

    writer.commit(digest)

    assert writer.resync() == writer.offset == 100
    assert writer.state() is None
    assert uploads.asked() == asked


# Tokens ------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [True, False])
def test_a_token_that_expires_in_the_middle_costs_one_chunk(
    uploads: Uploads, client: RegistryClient, whole: bool
) -> None:
    server = uploads.server
    server.respond("GET", "/token.*", reply(200, '{"token": "fresh"}'))
    challenge = reply(401, WWW_Authenticate=f'Bearer realm="{server.url}/token"')
    method = "PUT" if whole else "PATCH"
    uploads.trouble(method, always(challenge))

    Upload(client, BLOB, chunk=len(BLOB) if whole else 1000).run()

    assert uploads.blobs == {DIGEST: BLOB}
    assert len(server.matching_requests(part="/token")) == 1
    assert server.matching_requests(method)[-1].headers["authorization"] == "Bearer fresh"


def test_a_token_that_stays_refused_is_a_denial(uploads: Uploads, client: RegistryClient) -> None:
    server = uploads.server
    server.respond("GET", "/token.*", reply(200, '{"token": "fresh"}'))
    challenge = reply(401, WWW_Authenticate=f'Bearer realm="{server.url}/token"')
    uploads.trouble("PATCH", *[always(challenge)] * 100)

    with pytest.raises(ConcilError):
        Upload(client, BLOB).run()

    assert len(server.matching_requests("PATCH")) <= 6
