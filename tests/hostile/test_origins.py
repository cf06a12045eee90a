"""Secrets stay with the registry: REGISTRIES.md 3.3, and the rows of 4 about where to go."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from concil.config import RetryPolicy
from concil.dockerhub import DockerHub
from concil.engine.engine import Engine
from concil.errors import ProtocolViolation, RegistryDenied
from concil.oci.media_types import OCI_CONFIG
from tests.hostile.hostile_registry import (
    BLOB,
    LAYER,
    PASSWORD,
    TOKEN,
    USER,
    HostileRegistry,
    descriptor,
    failure,
    image,
)
from tests.support.scripted_server import Elsewhere, ReceivedRequest, ScriptedResponse, reply

# A proxy's password, in the way it goes over the wire.
PROXY_PASSWORD = "pr0xy-pass"
PROXY_BASIC = "dXNlcjpwcjB4eS1wYXNz"


@pytest.fixture
def hub(hostile: HostileRegistry) -> Iterator[DockerHub]:
    """Alice at a registry of the internet; whatever is not meant for it, a bystander gets."""
    hub = DockerHub(f"docker://{USER}:{PASSWORD}@registry.example/app:v1")
    hub.session.mount("https://", Elsewhere(hostile.bystander))
    hub.session.mount("http://", Elsewhere(hostile.bystander))
    hub.session.mount("https://registry.example/", Elsewhere(hostile.registry))
    hub._client.policy = RetryPolicy(max_attempts=2, backoff_base=0, max_backoff=0)
    yield hub
    hub.close()


def source(hostile: HostileRegistry, rest: str = "app:v1") -> str:
    return f"http://{hostile.registry.host}/{rest}"


def serve_image(hostile: HostileRegistry) -> None:
    hostile.serve_manifest(image())
    hostile.serve_blob(b"{}")
    hostile.serve_blob(BLOB)


def test_an_honest_copy_works(
    hostile: HostileRegistry, authenticated_engine: Engine, destination: Path
) -> None:
    """The others prove nothing if this fails."""
    serve_image(hostile)

    authenticated_engine.copy(source(hostile), f"oci:{destination}:v1")

    assert hostile.registry.matching_requests("GET", "/token")


# Redirects -------------------------------------------------------------------------


def at_storage(seen: ReceivedRequest) -> str:
    return f"/key{seen.path}?X-Amz-Signature=abc"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_takes_no_secret_along(
    hostile: HostileRegistry, authenticated_engine: Engine, destination: Path, status: int
) -> None:
    serve_image(hostile)
    for path, answer in list(hostile.served.items()):
        hostile.storage.respond("*", rf"/key{path}\?.*", answer)
        hostile.served[path] = lambda seen: reply(
            status, Location=hostile.storage.url + at_storage(seen)
        )

    authenticated_engine.copy(source(hostile), f"oci:{destination}:v1")

    assert {seen.path.split("/")[4] for seen in hostile.storage.requests} == {"manifests", "blobs"}


def test_what_was_taken_away_does_not_come_back(
    hostile: HostileRegistry, authenticated_engine: Engine, destination: Path
) -> None:
    serve_image(hostile)
    there = f"blobs/{descriptor(BLOB)['digest']}"
    back = f"http://{hostile.registry.host}/open/blob"
    hostile.serve(there, reply(307, Location=f"{hostile.bystander.url}/x"))
    hostile.bystander.respond("GET", "/x", reply(307, Location=back))
    hostile.registry.respond("GET", "/open/blob", reply(200, BLOB))

    authenticated_engine.copy(source(hostile), f"oci:{destination}:v1")

    [seen] = hostile.registry.matching_requests("GET", "/open/blob")
    assert "authorization" not in seen.headers


@pytest.mark.parametrize(
    "challenge",
    [
        'Basic realm="storage"',
        'Bearer realm="{bystander}/token",service="s",scope="x"',
        'Bearer realm="{registry}/token",service="s"',
    ],
)
def test_who_is_redirected_to_is_not_answered(
    hostile: HostileRegistry, authenticated_engine: Engine, destination: Path, challenge: str
) -> None:
    serve_image(hostile)
    url = f"{hostile.storage.url}/key"
    hostile.serve(f"blobs/{descriptor(BLOB)['digest']}", reply(307, Location=url))
    asked = challenge.format(bystander=hostile.bystander.url, registry=hostile.registry.url)
    hostile.storage.respond("GET", "/key", reply(401, WWW_Authenticate=asked))

    error = failure(lambda: authenticated_engine.copy(source(hostile), f"oci:{destination}:v1"))

    assert isinstance(error, RegistryDenied)
    assert not hostile.bystander.requests


INSIDE = (
    "169.254.169.254",
    "0xa9fea9fe",
    "2852039166",
    "0251.0376.0251.0376",
    "[::ffff:169.254.169.254]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:a9fe:a9fe::]",
    "[fe80::1]",
    "[fd00:ec2::254]",
)


@pytest.mark.parametrize("host", INSIDE)
def test_nobody_is_led_to_the_keys_of_a_cloud(
    hostile: HostileRegistry, hub: DockerHub, host: str
) -> None:
    hostile.serve("manifests/v1", reply(307, Location=f"https://{host}/latest/meta-data/iam"))

    error = failure(lambda: hub.get_manifest("v1"))

    assert isinstance(error, ProtocolViolation)
    assert not hostile.bystander.connections


@pytest.mark.parametrize(
    "location",
    [
        "http://storage.example/key",  # without TLS
        "ftp://storage.example/key",
        "file:///etc/passwd",
        "https://registry.example@storage.example/key",
        "https://alice:pw@storage.example/key",
        "https://storage.example\\@registry.example/key",
        "https://registry.example\\.storage.example/key",
        "https://registry.example%2estorage.example/key",
        "https://registry.example:443:80/key",
        "https://registry.example:99999/key",
        "https://\uff52egistry.example/key".encode().decode("latin-1"),
        "https://xn--\u00e9/key",
        "https:\t//storage.example/key",
        "\x0bhttp://storage.example/key",
        "https://storage.example\t.evil/key",
        "https://[::1/key",
        "https://localhost/key",
        "https://intranet.localhost./key",
        "https://127.1/key",
        "https://0/key",
        "https://[::]/key",
        "https:///key",
        "//",
        "https://" + "a" * 60_000,
    ],
)
def test_a_redirect_that_is_written_oddly_is_refused(
    hostile: HostileRegistry, hub: DockerHub, location: str
) -> None:
    hostile.serve("manifests/v1", reply(307, Location=location))

    failure(lambda: hub.get_manifest("v1"))

    assert not hostile.bystander.requests


# Tokens ----------------------------------------------------------------------------


def challenge_by(hostile: HostileRegistry, realm: str) -> None:
    """Let the registry name a realm."""
    value = f'Bearer realm="{realm}",service="s"'
    hostile.registry.respond("*", "/v2/.*", reply(401, WWW_Authenticate=value))


@pytest.mark.parametrize(
    "realm",
    [
        "http://auth.example/token",
        "https://{bystander}/token",
        "https://localhost/token",
        "https://localhost.localdomain/token",
        "https://ip6-localhost/token",
        "https://x.localhost./token",
        "https://192.168.1.1/token",
        "https://[::ffff:10.0.0.1]/token",
        "https://[64:ff9b:1::a00:1]/token",
        "https://[fec0::1]/token",
        "https://[fd00::1]/token",
        "https://0x7f.1/token",
        "https://\uff11\uff12\uff17.\uff10.\uff10.\uff11/token".encode().decode("latin-1"),
        "ftp://auth.example/token",
        "token:service",
        "https://[/token",
    ],
)
def test_a_realm_that_is_none_gets_nothing(
    hostile: HostileRegistry, hub: DockerHub, realm: str
) -> None:
    challenge_by(hostile, realm.format(bystander=hostile.bystander.host))

    error = failure(lambda: hub.get_manifest("v1"))

    assert isinstance(error, ProtocolViolation)
    assert not hostile.bystander.connections


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("to", ["other", "inside", "plain"])
def test_a_token_service_passes_nobody_on(
    hostile: HostileRegistry, hub: DockerHub, status: int, to: str
) -> None:
    where = {
        "other": "https://tokens.example/token",
        "inside": f"https://{hostile.bystander.host}/token",
        "plain": "http://tokens.example/token",
    }[to]
    hostile.registry.respond("*", "/token.*", reply(status, Location=where))
    challenge_by(hostile, "https://registry.example/token")
    hostile.bystander.respond("*", "/.*", reply(200, json.dumps({"token": "another"})))

    failure(lambda: hub.get_manifest("v1"))

    assert bool(hostile.bystander.requests) is (to == "other")


def test_a_registry_that_is_never_content_is_asked_a_few_times(
    hostile: HostileRegistry, hub: DockerHub
) -> None:
    number = iter(range(10_000))

    def refuse(_seen: ReceivedRequest) -> ScriptedResponse:
        scope = f"repository:app{next(number)}:pull"
        value = f'Bearer realm="https://registry.example/token",scope="{scope}",'
        return reply(401, WWW_Authenticate=value + 'error="insufficient_scope"')

    hostile.registry.respond("*", "/v2/.*", refuse)

    error = failure(lambda: hub.get_manifest("v1"))

    assert isinstance(error, RegistryDenied)
    assert len(hostile.registry.requests) < 12


# Uploads ---------------------------------------------------------------------------


def take_uploads(hostile: HostileRegistry, location: str) -> None:
    """Open sessions whose Location is somewhere else."""
    hostile.serve("POST blobs/uploads/", reply(202, Location=location))
    digest = descriptor(BLOB)["digest"]
    for server in (hostile.storage, hostile.bystander):
        server.respond("PATCH", "/.*", lambda seen: reply(202, Location=seen.path, Range="0-0"))
        server.respond("PUT", "/.*", reply(201, Docker_Content_Digest=str(digest)))
        server.respond("GET", "/.*", reply(204, Range="0-0"))


def test_an_upload_elsewhere_takes_no_secret_along(
    hostile: HostileRegistry, authenticated_engine: Engine, tmp_path: Path
) -> None:
    (tmp_path / "blob").write_bytes(BLOB)
    take_uploads(hostile, f"{hostile.storage.url}/session?state=secret")

    authenticated_engine.push_blob(tmp_path / "blob", source(hostile, "app"))

    [put] = hostile.storage.matching_requests("PUT")
    assert put.body == BLOB


def test_an_upload_that_is_redirected_takes_no_secret_along(
    hostile: HostileRegistry, authenticated_engine: Engine, tmp_path: Path
) -> None:
    (tmp_path / "blob").write_bytes(BLOB)
    take_uploads(hostile, "/v2/app/blobs/uploads/1")
    moved = reply(307, Location=f"{hostile.storage.url}/session")
    hostile.serve("PUT blobs/uploads/1", moved)

    failure(lambda: authenticated_engine.push_blob(tmp_path / "blob", source(hostile, "app")))

    assert hostile.registry.matching_requests("PUT")


@pytest.mark.parametrize(
    "location",
    [
        "http://storage.example/session",
        "https://127.0.0.1/session",
        "https://169.254.169.254/session",
        "file:///tmp/session",
        "https://registry.example@storage.example/session",
    ],
)
def test_an_upload_goes_nowhere_it_should_not(
    hostile: HostileRegistry, hub: DockerHub, location: str
) -> None:
    take_uploads(hostile, location)

    failure(lambda: hub.post_blob_data(BLOB, str(descriptor(BLOB)["digest"])))

    assert not hostile.bystander.connections


# Lists, layers ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "link",
    [
        "<{bystander}/v2/app/tags/list?n=1&last=a>; rel=next",
        "<//{host}/v2/app/tags/list?last=a>; rel=next",
        "<{storage}/v2/app/tags/list?last=a>; rel=next",
        "<https://{registry}/v2/app/tags/list?last=a>; rel=next",
        "<ftp://{registry}/v2/app/tags/list?last=a>; rel=next",
    ],
)
def test_a_list_does_not_go_on_elsewhere(
    hostile: HostileRegistry, authenticated_engine: Engine, link: str
) -> None:
    told = link.format(
        bystander=hostile.bystander.url,
        storage=hostile.storage.url,
        host=hostile.bystander.host,
        registry=hostile.registry.host,
    )
    page = json.dumps({"name": "app", "tags": ["a"]})
    hostile.serve("tags/list", reply(200, page, Link=told))

    error = failure(lambda: list(authenticated_engine.list_tags(source(hostile, "app"))))

    assert isinstance(error, ProtocolViolation)
    assert not hostile.bystander.connections
    assert not hostile.storage.connections


@pytest.mark.parametrize(
    "media_type", [LAYER, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"]
)
def test_the_urls_of_a_layer_are_never_asked(
    hostile: HostileRegistry, authenticated_engine: Engine, destination: Path, media_type: str
) -> None:
    urls = [f"{hostile.bystander.url}/layer", "file:///etc/passwd"]
    layers = [descriptor(BLOB), descriptor(b"far away", media_type, urls=urls)]
    config = descriptor(b"{}", OCI_CONFIG, urls=urls)
    hostile.serve_manifest(image(layers=layers, config=config))
    hostile.serve_blob(b"{}")
    hostile.serve_blob(BLOB)

    def copy() -> object:
        return authenticated_engine.copy(source(hostile), f"oci:{destination}:v1")

    failure(copy) if media_type == LAYER else copy()

    assert not hostile.bystander.connections


# What the machine keeps ------------------------------------------------------------


def test_no_netrc_is_sent(
    hostile: HostileRegistry,
    destination: Path,
    monkeypatch: pytest.MonkeyPatch,
    anonymous_engine: Engine,
) -> None:
    netrc = destination.parent.parent / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\ndefault login a\n")
    monkeypatch.setenv("NETRC", str(netrc))
    serve_image(hostile)
    url = f"{hostile.storage.url}/key"
    hostile.serve(f"blobs/{descriptor(BLOB)['digest']}", reply(307, Location=url))
    hostile.storage.respond("GET", "/key", reply(200, BLOB))

    anonymous_engine.copy(source(hostile), f"oci:{destination}:v1")

    basics = [
        s for s in hostile.registry.requests if s.headers.get("authorization", "")[:5] == "Basic"
    ]
    assert not basics
    assert hostile.storage.requests


@pytest.fixture
def by_proxy(hostile: HostileRegistry, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let all go through the bystander, who wants a password, but for some hosts."""

    def go(no_proxy: str) -> None:
        url = f"http://user:{PROXY_PASSWORD}@{hostile.bystander.host}"
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, no_proxy)

    return go


def test_past_the_proxy_nobody_sees_its_password(
    hostile: HostileRegistry,
    authenticated_engine: Engine,
    destination: Path,
    by_proxy: Callable[[str], None],
) -> None:
    by_proxy("127.0.0.1")
    serve_image(hostile)

    authenticated_engine.copy(source(hostile), f"oci:{destination}:v1")

    assert not hostile.bystander.connections
    for seen in hostile.registry.requests:
        assert "proxy-authorization" not in seen.headers


def test_a_redirect_past_the_proxy_takes_no_password_along(
    hostile: HostileRegistry, anonymous_engine: Engine, by_proxy: Callable[[str], None]
) -> None:
    by_proxy("127.0.0.1")
    elsewhere = reply(307, Location=f"{hostile.storage.url}/list")
    hostile.bystander.respond("GET", "http://registry.example/v2/app/tags/list.*", elsewhere)

    error = failure(lambda: list(anonymous_engine.list_tags("http://registry.example/app")))

    assert isinstance(error, ProtocolViolation)  # to this machine, from one of the internet
    [seen] = hostile.bystander.requests
    assert seen.headers["proxy-authorization"] == f"Basic {PROXY_BASIC}"
    hostile.allow("bystander", "proxy-authorization")
    assert TOKEN not in str(seen.headers)
