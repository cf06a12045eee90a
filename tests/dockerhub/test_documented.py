"""Programs written for the original client run unchanged, against every kind of registry."""

from __future__ import annotations

import io
import json
import shutil
import ssl
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from concil.dockerhub import DockerHub, DockerPath, ResponseStream
from concil.errors import (
    AccessDenied,
    ConcilError,
    DigestMismatch,
    InvalidDigest,
    InvalidManifest,
    InvalidReference,
    NotFound,
    RegistryDenied,
    TLSFailure,
    UsageError,
)
from concil.oci.media_types import ACCEPTED_TYPES
from concil.progress.events import Event
from tests.dockerhub.conftest import PASSWORD, USER, MakeHub, RegistrySetup
from tests.support.docker_registry import DockerRegistry
from tests.support.images import DOCKER, OCI, digest_of, make_blob, make_image, put_image
from tests.support.scripted_server import (
    Elsewhere,
    ReceivedRequest,
    ScriptedResponse,
    ScriptedServer,
    reply,
)
from tests.support.tls import CertificateAuthority
from tests.support.token_protected_registry import basic

pytestmark = pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
V2 = DOCKER.manifest
BLOB = make_blob(1, 300_000)
DIGEST = digest_of(BLOB)
MISSING = digest_of(b"never pushed")
IMAGE = make_image(7, (3000,), types=DOCKER)


@pytest.fixture
def hub(registry_setup: RegistrySetup, repository: str, make_hub: MakeHub) -> DockerHub:
    return make_hub(registry_setup.url(f"{repository}:v1"), verify=registry_setup.verify)


def push(hub: DockerHub) -> None:
    for digest, blob in IMAGE.blobs.items():
        hub.post_blob_data(blob, digest)
    hub.post_manifest(IMAGE.manifest)


# Blobs -------------------------------------------------------------------------------------


def test_a_blob_goes_and_comes(hub: DockerHub) -> None:
    assert hub.has_blob(DIGEST) is False

    response = hub.post_blob_data(BLOB, DIGEST)

    assert isinstance(response, requests.Response)
    assert response.status_code == 201
    assert hub.has_blob(DIGEST) is True
    assert hub.open_blob(DIGEST).content == BLOB


@pytest.mark.parametrize("prefix", ["", "sha256:"])
def test_a_file_is_named_by_its_digest(hub: DockerHub, tmp_path: Path, prefix: str) -> None:
    path = tmp_path / (prefix + DIGEST.removeprefix("sha256:"))
    path.write_bytes(BLOB)

    response = hub.post_blob(str(path))

    assert response.status_code == 201
    assert (DockerPath(hub) / DIGEST.removeprefix("sha256:")).read_bytes() == BLOB


def test_each_way_to_read_a_blob(hub: DockerHub, tmp_path: Path) -> None:
    hub.post_blob_data(BLOB, DIGEST)

    with hub.open_blob(DIGEST) as response:
        assert response.status_code == 200
        assert response.headers["Content-Length"] == str(len(BLOB))
        assert b"".join(response.iter_content(1000)) == BLOB
    with hub.open_blob(DIGEST) as response:
        assert response.raw.read(10) == BLOB[:10]
        assert response.raw.read() == BLOB[10:]
    with hub.open_blob(DIGEST) as response, (tmp_path / "copy").open("wb") as file:
        shutil.copyfileobj(response.raw, file)
    assert (tmp_path / "copy").read_bytes() == BLOB


def test_a_blob_as_a_path(hub: DockerHub) -> None:
    hub.post_blob_data(BLOB, DIGEST)
    path = DockerPath(hub) / DIGEST.removeprefix("sha256:")

    assert path.read_bytes() == BLOB
    with path.open() as stream:
        assert isinstance(stream, ResponseStream)
        assert stream.read(10) == BLOB[:10]
        assert stream.read(0) == b""
        assert stream.read(100_000) == BLOB[10:100_010]
        assert stream.read() == BLOB[100_010:]
        assert stream.read() == b""
        assert stream.read(5) == b""
    with (DockerPath(hub) / DIGEST).open("rb") as stream:  # with the algorithm too
        assert stream.read(-1) == BLOB
    with pytest.raises(ValueError, match="rb"):
        path.open("r")


def test_a_blob_that_is_missing(hub: DockerHub) -> None:
    for ask in (hub.open_blob, lambda d: DockerPath(hub, d).read_bytes()):
        with pytest.raises(requests.HTTPError) as caught:
            ask(MISSING)

        assert caught.value.args[0].startswith("404")
        assert "BLOB_UNKNOWN" in caught.value.args[0] or "NAME_UNKNOWN" in caught.value.args[0]
        assert caught.value.response is not None
        assert caught.value.response.status_code == 404
        kinds: tuple[type[BaseException], ...] = (RuntimeError, NotFound)
        assert all(isinstance(caught.value, kind) for kind in kinds)


def test_wrong_bytes_are_not_committed(hub: DockerHub, tmp_path: Path) -> None:
    (tmp_path / DIGEST).write_bytes(BLOB[:-1] + b"?")

    with pytest.raises(DigestMismatch):
        hub.post_blob(str(tmp_path / DIGEST))
    with pytest.raises(DigestMismatch):
        hub.post_blob_data(b"other", DIGEST)

    assert not hub.has_blob(DIGEST)


def test_an_empty_blob(hub: DockerHub) -> None:
    digest = digest_of(b"")

    hub.post_blob_data(b"", digest)

    assert hub.open_blob(digest).content == b""
    assert DockerPath(hub, digest).open().read() == b""


def test_a_blob_of_several_chunks_tells_how_far_it_is(hub: DockerHub) -> None:
    blob = make_blob(2, 23_000_000)
    digest = digest_of(blob)
    events: list[Event] = []

    def note(event: Event) -> None:
        events.append(event)

    response = hub.post_blob_data(blob, digest, progress=note)

    assert response.status_code == 201
    positions = [event.position for event in events]
    assert positions == sorted(positions)
    assert (events[0].state, events[-1].state) == ("started", "done")
    assert {event.subject for event in events} == {digest}
    assert {event.total for event in events} == {len(blob)}
    events.clear()
    assert hub.open_blob(digest, progress=note).content == blob
    assert [event.position for event in events][-1] == len(blob)


# Manifests ---------------------------------------------------------------------------------


def test_manifests(hub: DockerHub) -> None:
    push(hub)
    bare = IMAGE.digest.removeprefix("sha256:")

    for name in (None, "v1", IMAGE.digest, bare):
        assert hub.get_manifest(name, V2) == IMAGE.manifest
    assert hub.get_manifest(hash=IMAGE.digest, accept=None) == IMAGE.manifest
    with hub.open_manifest(accept=V2) as response:
        assert response.headers["Content-Type"] == V2
        assert response.headers["Docker-Content-Digest"] == IMAGE.digest
        assert response.json() == json.loads(IMAGE.manifest)


def test_a_manifest_under_another_tag_and_type(hub: DockerHub) -> None:
    image = make_image(8, (100,), types=OCI)
    for digest, blob in image.blobs.items():
        hub.post_blob_data(blob, digest)

    response = hub.post_manifest(image.manifest, tag="v2", content_type=OCI.manifest)
    hub.post_manifest(image.manifest, image.digest, OCI.manifest)

    assert response.status_code == 201
    assert hub.get_manifest("v2", OCI.manifest) == image.manifest
    with pytest.raises(requests.HTTPError):
        hub.get_manifest("v1", OCI.manifest)


def test_a_manifest_that_is_missing(hub: DockerHub) -> None:
    try:
        hub.get_manifest("missing")
    except requests.exceptions.HTTPError as err:
        assert err.args[0].startswith("404")  # noqa: PT017 - as callers do
    else:
        pytest.fail("no error")


def test_a_manifest_whose_blobs_are_missing_says_so(hub: DockerHub) -> None:
    with pytest.raises(RuntimeError, match=r"^400 .*MANIFEST_BLOB_UNKNOWN"):
        hub.post_manifest(IMAGE.manifest)


# Requests ----------------------------------------------------------------------------------


def test_requests_of_the_callers_own(hub: DockerHub) -> None:
    push(hub)
    root = hub.url.partition("/v2/")[0]

    tags = hub.request("GET", f"{hub.url}/tags/list", params={"n": 5})
    head = hub.request("HEAD", f"{hub.url}/manifests/v1", headers={"Accept": V2})
    with hub.request("GET", f"{root}/v2/", stream=True) as response:
        assert response.raw.read() in (b"{}", b"")

    assert tags.json()["tags"] == ["v1"]
    assert head.headers["Docker-Content-Digest"] == IMAGE.digest
    with pytest.raises(requests.HTTPError, match=r"^404 "):
        hub.request("GET", f"{hub.url}/manifests/missing")
    put = hub.request("POST", f"{hub.url}/blobs/uploads/")
    assert put.status_code == 202


def test_what_a_hub_knows_of_itself(
    registry_setup: RegistrySetup, hub: DockerHub, repository: str
) -> None:
    assert hub.repository == repository
    assert hub.tag == "v1"
    assert hub.url.endswith(f"://{registry_setup.host}/v2/{repository}")
    assert isinstance(hub.session, requests.Session)
    assert (hub.username, hub.password) == (
        (USER, PASSWORD) if registry_setup.user else (None, None)
    )


@pytest.mark.real
def test_a_plain_registry_on_loopback_changes_the_url(
    docker_registry: DockerRegistry, repository: str, make_hub: MakeHub
) -> None:
    hub = make_hub(f"docker://{docker_registry.host}/{repository}")
    assert hub.url == f"https://{docker_registry.host}/v2/{repository}"
    before = hub.url

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(hub.has_blob, [MISSING] * 8))

    assert found == [False] * 8
    assert hub.url == f"http://{docker_registry.host}/v2/{repository}"
    hub.post_blob_data(BLOB, DIGEST)
    assert hub.request("HEAD", f"{before}/blobs/{DIGEST}").status_code == 200  # as it was


@pytest.mark.real
def test_an_untrusted_certificate_is_not_talked_to(
    tls_registry: DockerRegistry, repository: str, make_hub: MakeHub
) -> None:
    hub = make_hub(f"docker://{tls_registry.host}/{repository}")

    with pytest.raises(TLSFailure) as caught:
        hub.has_blob(DIGEST)

    assert isinstance(caught.value, requests.exceptions.SSLError)
    assert hub.url.startswith("https://")


@pytest.mark.real
def test_verify_may_be_changed_on_the_session(
    tls_registry: DockerRegistry, repository: str, make_hub: MakeHub, ca: CertificateAuthority
) -> None:
    hub = make_hub(f"docker://{tls_registry.host}/{repository}")
    hub.session.verify = str(ca.path)

    assert hub.has_blob(DIGEST) is False


# Users and passwords -----------------------------------------------------------------------


class Terminal:
    """A person who answers prompts, in place of input() and getpass."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, user: str, password: str) -> None:
        self.prompts: list[str] = []
        self._lock = threading.Lock()
        monkeypatch.setattr("builtins.input", lambda prompt="": self._answer(prompt, user))
        monkeypatch.setattr("getpass.getpass", lambda prompt="": self._answer(prompt, password))

    def _answer(self, prompt: str, answer: str) -> str:
        with self._lock:
            self.prompts.append(prompt)
        return answer


@pytest.mark.real
def test_a_person_is_asked_once_over_all_threads(
    basic_auth_registry: DockerRegistry,
    repository: str,
    make_hub: MakeHub,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal(monkeypatch, USER, PASSWORD)
    hub = make_hub(f"docker://{basic_auth_registry.host}/{repository}")

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(hub.has_blob, [MISSING] * 8))

    assert found == [False] * 8
    assert len(terminal.prompts) == 2
    assert all(basic_auth_registry.host in prompt for prompt in terminal.prompts)
    assert (hub.username, hub.password) == (USER, PASSWORD)


@pytest.mark.real
def test_only_what_is_missing_is_asked_for(
    basic_auth_registry: DockerRegistry,
    repository: str,
    make_hub: MakeHub,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal(monkeypatch, "never", PASSWORD)
    hub = make_hub(f"http://al+ice@{basic_auth_registry.host}/{repository}")

    hub.post_blob_data(BLOB, DIGEST)

    assert len(terminal.prompts) == 1


@pytest.mark.real
def test_a_wrong_answer_is_a_denial_and_no_second_question(
    basic_auth_registry: DockerRegistry,
    repository: str,
    make_hub: MakeHub,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal(monkeypatch, USER, "wrong")
    hub = make_hub(f"http://{basic_auth_registry.host}/{repository}")

    for _ in range(2):
        with pytest.raises(RegistryDenied, match=r"^401 "):
            hub.get_manifest()

    assert len(terminal.prompts) == 2


@pytest.mark.real
def test_nobody_at_the_terminal_is_a_clear_error(
    basic_auth_registry: DockerRegistry,
    repository: str,
    make_hub: MakeHub,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    hub = make_hub(f"http://{basic_auth_registry.host}/{repository}")

    with pytest.raises(AccessDenied, match="no terminal for a prompt") as caught:
        hub.has_blob(DIGEST)

    assert "docker://user:password@" in caught.value.remedy
    assert basic_auth_registry.host in str(caught.value)


@pytest.mark.real
@pytest.mark.parametrize("userinfo", [":@", "@"])
def test_an_empty_user_is_never_asked(
    basic_auth_registry: DockerRegistry,
    repository: str,
    make_hub: MakeHub,
    monkeypatch: pytest.MonkeyPatch,
    userinfo: str,
) -> None:
    terminal = Terminal(monkeypatch, USER, PASSWORD)
    hub = make_hub(f"docker://{userinfo}{basic_auth_registry.host}/{repository}")

    with pytest.raises(requests.HTTPError, match=r"^401 .*UNAUTHORIZED"):
        hub.get_manifest()

    assert not terminal.prompts


@pytest.mark.real
def test_user_and_password_may_be_set_later(
    basic_auth_registry: DockerRegistry, repository: str, make_hub: MakeHub
) -> None:
    hub = make_hub(f"http://{basic_auth_registry.host}/{repository}")
    hub.username, hub.password = USER, PASSWORD

    assert hub.has_blob(DIGEST) is False


# The session -------------------------------------------------------------------------------

TAGS = "/v2/team/app/tags/list"


@pytest.fixture
def scripted_hub(server: ScriptedServer, make_hub: MakeHub) -> DockerHub:
    return make_hub(f"http://{server.host}/team/app:v1")


def test_headers_of_the_session_go_along(server: ScriptedServer, scripted_hub: DockerHub) -> None:
    server.respond("GET", TAGS, reply(200))
    scripted_hub.session.headers["X-Trace"] = "mine"

    scripted_hub.request("GET", scripted_hub.url + "/tags/list", headers={"X-Once": "1"})

    [seen] = server.requests
    assert seen.headers["x-trace"] == "mine"
    assert seen.headers["x-once"] == "1"
    assert seen.headers["docker-distribution-api-version"] == "registry/2.0"


def test_proxies_of_the_session_are_used(server: ScriptedServer, make_hub: MakeHub) -> None:
    hub = make_hub("http://reg.example/team/app")
    hub.session.proxies = {"http": server.url}
    server.respond("HEAD", f"http://reg.example/v2/team/app/blobs/{DIGEST}", reply(200, BLOB))

    assert hub.has_blob(DIGEST)


def test_the_originals_word_for_no_proxy_is_understood(
    server: ScriptedServer, scripted_hub: DockerHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    scripted_hub.session.proxies = {"http": "", "https": ""}
    server.respond("HEAD", ".*", reply(200))

    assert scripted_hub.has_blob(DIGEST)


def test_adapters_of_the_session_are_used(server: ScriptedServer, make_hub: MakeHub) -> None:
    hub = make_hub("docker://docker.io/library/alpine:3")
    hub.session.mount("https://registry-1.docker.io", Elsewhere(server))
    server.respond("GET", "/v2/library/alpine/manifests/3", reply(200, b"{}"))

    assert hub.get_manifest() == b"{}"
    assert server.requests[0].headers["host"] == "registry-1.docker.io"


def test_a_session_of_the_callers_own_is_used(
    server: ScriptedServer, scripted_hub: DockerHub
) -> None:
    server.respond("HEAD", ".*", reply(200))
    with requests.Session() as session:
        session.headers["User-Agent"] = "mine"
        scripted_hub.session = session

        assert scripted_hub.has_blob(DIGEST)
        assert scripted_hub.session is session

    assert server.requests[0].headers["user-agent"] == "mine"


def test_a_client_certificate_of_the_session_is_shown(
    make_hub: MakeHub, ca: CertificateAuthority
) -> None:
    certificate, mine = ca.issue(), ca.issue("me.example")
    context = certificate.server_context()
    context.load_verify_locations(ca.path)
    context.verify_mode = ssl.CERT_REQUIRED
    with ScriptedServer(context=context) as server:
        server.respond("HEAD", ".*", reply(200))
        hub = make_hub(f"https://{server.host}/team/app", verify=str(ca.path))
        with pytest.raises(ConcilError):
            hub.request("HEAD", hub.url + "/x")
        hub.session.cert = (str(mine.certificate), str(mine.key))

        assert hub.has_blob(DIGEST)


def test_a_url_set_by_the_caller_counts(server: ScriptedServer, make_hub: MakeHub) -> None:
    hub = make_hub("docker://reg.example/team/app")
    server.respond("HEAD", f"/v2/other/blobs/{DIGEST}", reply(200))

    hub.url = f"{server.url}/v2/other"

    assert hub.has_blob(DIGEST)


# Keywords of request -----------------------------------------------------------------------


def body_of(server: ScriptedServer, hub: DockerHub, **keywords: object) -> ReceivedRequest:
    server.respond("POST", "/v2/team/app/_trust/tuf/.*", reply(200, b'{"ok": true}'))
    response = hub.request("POST", hub.url + "/_trust/tuf/", **keywords)
    assert response.json() == {"ok": True}
    return server.requests[-1]


def test_files_are_posted_as_a_form(server: ScriptedServer, scripted_hub: DockerHub) -> None:
    files = {"root": ("root", b'{"signed": 1}'), "targets": ("targets", io.BytesIO(b"two"))}

    seen = body_of(server, scripted_hub, files=files)

    assert seen.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert b'name="root"; filename="root"' in seen.body
    assert b'{"signed": 1}' in seen.body
    assert b"two" in seen.body


@pytest.mark.parametrize(
    ("keywords", "body", "content_type"),
    [
        ({"json": {"a": 1}}, b'{"a": 1}', "application/json"),
        ({"data": {"a": "b c"}}, b"a=b+c", "application/x-www-form-urlencoded"),
        ({"data": b"bytes"}, b"bytes", None),
        ({"data": "text \u00e9"}, "text \u00e9".encode(), None),
        ({"data": bytearray(b"array")}, b"array", None),
        ({}, b"", None),
    ],
)
def test_bodies(
    server: ScriptedServer,
    scripted_hub: DockerHub,
    keywords: dict[str, object],
    body: bytes,
    content_type: str | None,
) -> None:
    seen = body_of(server, scripted_hub, **keywords)

    assert seen.body == body
    assert seen.headers.get("content-type") == content_type


def test_the_callers_content_type_wins(server: ScriptedServer, scripted_hub: DockerHub) -> None:
    seen = body_of(server, scripted_hub, json=[], headers={"Content-Type": "application/x"})

    assert seen.headers["content-type"] == "application/x"


def test_parameters(server: ScriptedServer, scripted_hub: DockerHub) -> None:
    seen = body_of(server, scripted_hub, params={"a": "b c"}, data=b"x")

    assert seen.query == {"a": ["b c"]}


def test_a_keyword_that_requests_does_not_know(scripted_hub: DockerHub) -> None:
    with pytest.raises(TypeError, match="'nonsense'"):
        scripted_hub.request("GET", scripted_hub.url, nonsense=1)


def test_a_url_without_a_scheme_is_requests_own_error(scripted_hub: DockerHub) -> None:
    with pytest.raises(requests.exceptions.MissingSchema):
        scripted_hub.request("GET", "no-scheme")


def test_hooks_cookies_and_credentials_of_one_request(
    server: ScriptedServer, scripted_hub: DockerHub
) -> None:
    heard: list[requests.Response] = []
    hooks = {"response": lambda response, **_: heard.append(response)}

    seen = body_of(
        server, scripted_hub, hooks=hooks, cookies={"a": "b"}, auth=("me", "pw"), timeout=30
    )

    assert len(heard) == 1
    assert seen.headers["cookie"] == "a=b"
    assert seen.headers["authorization"] == basic("me", "pw")


def test_redirects_are_followed_unless_the_caller_does_not_want_it(
    server: ScriptedServer, scripted_hub: DockerHub
) -> None:
    server.respond("GET", TAGS, reply(307, Location="/there"))
    server.respond("GET", "/there", reply(200, b"there"))

    assert scripted_hub.request("GET", scripted_hub.url + "/tags/list").content == b"there"
    response = scripted_hub.request("GET", scripted_hub.url + "/tags/list", allow_redirects=False)
    assert response.status_code == 307


class Token:
    """A server that wants a token for everything."""

    def __init__(self, server: ScriptedServer) -> None:
        self.server = server
        server.respond("GET", "/token.*", reply(200, '{"token": "t"}'))
        server.respond("*", "/v2/.*", self._answer)

    def _answer(self, seen: ReceivedRequest) -> ScriptedResponse:
        if seen.headers.get("authorization") == "Bearer t":
            return reply(201, b"in")
        return reply(401, WWW_Authenticate=f'Bearer realm="{self.server.url}/token"')


def test_an_open_file_is_sent_again_whole_after_a_challenge(
    server: ScriptedServer, scripted_hub: DockerHub, tmp_path: Path
) -> None:
    Token(server)
    (tmp_path / "file").write_bytes(b"0123456789")
    with (tmp_path / "file").open("rb") as file:
        file.seek(4)

        response = scripted_hub.request("PUT", scripted_hub.url + "/x", data=file)

    assert response.content == b"in"
    assert [seen.body for seen in server.matching_requests("PUT")] == [b"456789", b"456789"]


def test_a_body_that_can_be_read_once_does_not_meet_a_challenge(
    server: ScriptedServer, scripted_hub: DockerHub
) -> None:
    Token(server)
    body = bytearray(b"once")

    assert scripted_hub.request("PUT", scripted_hub.url + "/x", data=body).content == b"in"
    assert [repr(seen) for seen in server.requests if "/token" not in seen.path] == [
        "GET /v2/",
        "GET /v2/",
        "PUT /v2/team/app/x",
    ]


def test_a_body_that_breaks_off_is_our_error(
    server: ScriptedServer, scripted_hub: DockerHub
) -> None:
    server.respond("GET", TAGS, ScriptedResponse(200, b"short", length=100, cut="fin"))

    with pytest.raises(requests.ConnectionError) as caught:
        scripted_hub.request("GET", scripted_hub.url + "/tags/list")

    assert isinstance(caught.value, ConcilError)


# Manifests from servers that misbehave -----------------------------------------------------

MANIFEST = "/v2/team/app/manifests/v1"


def test_the_default_is_what_the_original_asked_for(
    server: ScriptedServer, scripted_hub: DockerHub
) -> None:
    server.respond("GET", MANIFEST, reply(200, b"{}"))

    scripted_hub.get_manifest()
    scripted_hub.get_manifest(accept=None)

    first, second = server.requests
    assert first.headers["accept"] == "application/vnd.docker.distribution.manifest.v1+json"
    assert second.headers["accept"] == ", ".join((*ACCEPTED_TYPES, "*/*"))


@pytest.mark.parametrize("by_digest", [False, True])
def test_a_manifest_above_the_limit_is_refused(
    server: ScriptedServer, scripted_hub: DockerHub, by_digest: bool
) -> None:
    body = b" " * (4 * 1024 * 1024 + 1)
    server.respond("GET", "/v2/team/app/manifests/.*", ScriptedResponse(200, body))

    with pytest.raises(InvalidManifest, match="larger than"):
        scripted_hub.get_manifest(digest_of(body) if by_digest else None)


@pytest.mark.parametrize("by_digest", [False, True])
def test_a_manifest_that_breaks_off(
    server: ScriptedServer, scripted_hub: DockerHub, by_digest: bool
) -> None:
    half = ScriptedResponse(200, IMAGE.manifest[:40], length=len(IMAGE.manifest), cut="fin")
    server.respond("GET", "/v2/team/app/manifests/.*", half, ScriptedResponse(200, IMAGE.manifest))

    assert scripted_hub.get_manifest(IMAGE.digest if by_digest else None) == IMAGE.manifest


def test_an_open_manifest_is_verified_and_goes_on_after_a_drop(
    server: ScriptedServer, scripted_hub: DockerHub
) -> None:
    half = ScriptedResponse(200, IMAGE.manifest[:40], length=len(IMAGE.manifest), cut="fin")
    path = f"/v2/team/app/manifests/{IMAGE.digest}"
    server.respond("GET", path, half, reply(200, IMAGE.manifest), reply(200, b"{}"))

    with scripted_hub.open_manifest(IMAGE.digest, accept=V2) as response:
        assert response.json() == json.loads(IMAGE.manifest)
    with scripted_hub.open_manifest(IMAGE.digest) as response, pytest.raises(DigestMismatch):
        _ = response.content

    assert {seen.headers["accept"] for seen in server.requests[:2]} == {V2}


def test_a_manifest_is_asked_for_again_while_the_registry_is_busy(
    server: ScriptedServer, scripted_hub: DockerHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: 0)
    server.respond("GET", MANIFEST, reply(503), reply(200, b"{}"))
    server.respond("PUT", MANIFEST, reply(503), reply(201))

    assert scripted_hub.get_manifest() == b"{}"
    assert scripted_hub.post_manifest(b"{}").status_code == 201


def test_another_manifest_than_asked_for_is_refused(
    server: ScriptedServer, scripted_hub: DockerHub
) -> None:
    server.respond("GET", "/v2/.*", reply(200, b"{}"))

    with pytest.raises(DigestMismatch):
        scripted_hub.get_manifest(IMAGE.digest)


@pytest.mark.parametrize("name", ["../x", "a b", "sha256:12", "x?y"])
def test_names_are_checked_before_they_are_part_of_a_url(
    server: ScriptedServer, scripted_hub: DockerHub, name: str
) -> None:
    for ask in (scripted_hub.open_manifest, scripted_hub.get_manifest, scripted_hub.has_blob):
        with pytest.raises(UsageError):
            ask(name)
    with pytest.raises(UsageError):
        scripted_hub.post_manifest(b"{}", name)
    with pytest.raises(InvalidDigest):
        scripted_hub.open_blob(name)
    with pytest.raises(InvalidDigest):
        scripted_hub.post_blob_data(b"", name)

    assert not server.requests


def test_a_path_without_a_digest_has_no_content(scripted_hub: DockerHub) -> None:
    with pytest.raises(InvalidDigest, match="does not name a blob"):
        DockerPath(scripted_hub).read_bytes()


def test_a_file_whose_name_is_no_digest(scripted_hub: DockerHub, tmp_path: Path) -> None:
    (tmp_path / "layer.tar").write_bytes(b"x")

    with pytest.raises(InvalidDigest):
        scripted_hub.post_blob(str(tmp_path / "layer.tar"))


def test_a_refusal_to_tell_is_no_absence(server: ScriptedServer, scripted_hub: DockerHub) -> None:
    server.respond("HEAD", ".*", reply(403))

    with pytest.raises(requests.HTTPError, match=r"^403 "):
        scripted_hub.has_blob(DIGEST)


def test_an_answer_to_the_commit_that_got_lost_is_made_up_for(
    server: ScriptedServer, scripted_hub: DockerHub
) -> None:
    server.respond("POST", "/v2/team/app/blobs/uploads/", reply(202, Location="/session"))
    server.respond("PUT", "/session.*", ScriptedResponse(0))
    server.respond("HEAD", f"/v2/team/app/blobs/{DIGEST}", reply(200, BLOB))

    response = scripted_hub.post_blob_data(BLOB, DIGEST)

    assert response.status_code == 200
    assert response.headers["Content-Length"] == str(len(BLOB))


def test_a_name_that_is_none(make_hub: MakeHub) -> None:
    for url in ("docker://host/Upper", "docker://host/../x", "ftp://host/x", "docker://h:x/y"):
        with pytest.raises(InvalidReference):
            make_hub(url)


def test_an_idle_timeout_of_the_callers(make_hub: MakeHub) -> None:
    never = threading.Event()
    with ScriptedServer() as server:
        server.respond("GET", TAGS, ScriptedResponse(200, hold=never))
        hub = make_hub(f"http://{server.host}/team/app", timeout=0.05)

        with pytest.raises(
            requests.ConnectionError, match="no data was received within the timeout"
        ):
            hub.request("GET", hub.url + "/tags/list")
        never.set()


@pytest.mark.real
def test_an_image_of_another_tool_is_read(
    docker_registry: DockerRegistry, repository: str, make_hub: MakeHub
) -> None:
    image = make_image(11, (5000,), types=DOCKER)
    put_image(docker_registry.url, repository, "v1", image)
    hub = make_hub(f"docker://{docker_registry.host}/{repository}:v1")

    manifest = json.loads(hub.get_manifest(accept=V2))
    layer = manifest["layers"][0]["digest"].partition(":")[2]

    with (
        (DockerPath(hub) / layer).open() as stream,
        tarfile.open(fileobj=stream, mode="r|*") as tar,
    ):
        assert [member.size for member in tar] == [5000]
