"""No exception of an upload session or a signed URL shows it, nor does what is behind it."""

from __future__ import annotations

import io
import itertools
import logging
from collections.abc import Iterator

import pytest
import requests

from concil.auth.credentials.credentials import CredentialProviders, Credentials
from concil.errors import ConcilError, StatusError
from concil.http import errors
from concil.http.requests_session import create_session
from concil.http.transport import Transport
from concil.oci.manifest import Digest
from concil.registry.client import RegistryClient
from concil.registry.endpoint import Call, Endpoint
from concil.registry.upload_session import UploadSession
from tests.support.images import digest_of
from tests.support.quick_retries import FAST
from tests.support.scripted_server import NO_RESPONSE, ScriptedResponse, ScriptedServer, reply
from tests.support.secret_search import forms, texts

_numbers = itertools.count()
FORMS = {
    "distribution": "/v2/team/app/blobs/uploads/{}?_state={}",
    "GHCR": "/v2/team/app/blobs/upload/{}",
    "GAR": "/artifacts-uploads/namespaces/p/repositories/r/uploads/{}",
    "path parameters": "/up/x;sig={};more={}",
    "a short path": "/up?sig={}&policy={}",
    "one segment": "/{}",
    "encoded": "/upload/%2f{}%3d%3D?state={}%2B%2f",
}
DIGEST = Digest.from_bytes(b"content")


class Chunk(io.BytesIO):
    """A body that knows its length."""

    def __len__(self) -> int:
        return len(self.getvalue())


def another() -> str:
    """A new secret: what was one before would be hidden anyway."""
    return f"s3ss10n-{next(_numbers)}-secret"


@pytest.fixture
def secret() -> str:
    return another()


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG, "concil"):
        yield caplog


def refusal(location: str, secret: str) -> ScriptedResponse:
    """An error that says the session again, in every way."""
    body = f"no session {location} ({secret}) of http://h{location}"
    return ScriptedResponse(
        400, body.encode(), (("Location", location), ("Warning", f'299 - "{location} {secret}"'))
    )


@pytest.mark.parametrize("way", FORMS)
@pytest.mark.parametrize("trouble", ["refused", "lost", "redirected away", "unknown"])
def test_a_session_is_in_no_exception_and_no_log(
    server: ScriptedServer,
    client: RegistryClient,
    logged: pytest.LogCaptureFixture,
    way: str,
    trouble: str,
) -> None:
    secret = another()
    location = FORMS[way].replace("{}", secret)
    answer = {
        "refused": refusal(location, secret),
        "lost": NO_RESPONSE,
        "redirected away": reply(307, Location=f"http://[{secret}]/x"),
        "unknown": reply(404, f"unknown: {location}"),
    }[trouble]
    server.respond("*", ".*", answer)
    server.respond("POST", "/v2/.*", reply(202, Location=location))
    session = UploadSession.start(client)
    raised = []

    for call in (
        lambda: session.patch(Chunk(b"content")),
        session.status,
        lambda: session.put(DIGEST, b"content"),
    ):
        with pytest.raises(ConcilError) as info:
            call()
        raised.append(info.value)
    session.cancel()

    shown = "\n".join([*map(texts, raised), logged.text])
    assert len(server.requests) >= 4
    assert secret not in shown
    assert "<session>" in shown


@pytest.mark.parametrize("way", FORMS)
def test_a_session_of_an_earlier_run_is_hidden_as_well(
    server: ScriptedServer, client: RegistryClient, way: str, secret: str
) -> None:
    location = FORMS[way].replace("{}", secret)
    server.respond("*", ".*", refusal(location, secret))

    with pytest.raises(ConcilError) as info:
        UploadSession(client, server.url + location, 3).status()

    assert secret not in texts(info.value)


@pytest.mark.parametrize(
    "location", ["http://[{}/x", "http://169.254.169.254/{}", "http://h:{}/x", "http://a\\{}@b/x"]
)
def test_a_location_that_is_refused_is_hidden(
    server: ScriptedServer, client: RegistryClient, location: str, secret: str
) -> None:
    server.respond("POST", "/v2/.*", reply(202, Location=location.replace("{}", secret)))

    with pytest.raises(ConcilError) as info:
        UploadSession.start(client)

    assert secret not in texts(info.value)


def test_a_signed_url_is_in_no_exception(
    server: ScriptedServer, storage: ScriptedServer, client: RegistryClient, secret: str
) -> None:
    signed = f"{storage.url}/blob/sha256/12;sig={secret}?X-Amz-Signature={secret}&se={secret}"
    server.respond("GET", "/v2/.*", reply(307, Location=signed))
    call = Call("GET", client.path(f"blobs/{DIGEST}"), max_response_size=1000, operation="a blob")
    for answer in (
        reply(403, f"bad signature {secret} for {signed} {signed.partition('?')[2]}"),
        NO_RESPONSE,
        reply(200, b"x", Content_Encoding="odd"),
        reply(307, Location=f"http://169.254.169.254/?{secret}"),
    ):
        storage.respond("GET", ".*", answer)

        with pytest.raises(ConcilError) as info:
            client.endpoint.send_with_retry(call, client.policy)

        assert secret not in texts(info.value)


def test_an_exception_keeps_status_headers_and_body_of_an_answer(
    server: ScriptedServer, client: RegistryClient
) -> None:
    body = '{"errors": [{"code": "DENIED", "message": "no"}]}'
    server.respond("GET", "/v2/.*", reply(403, body, X_Request_Id="1234"))

    with pytest.raises(StatusError) as info:
        client.get_manifest("v1")

    response = info.value.response
    assert response is not None
    assert response.status_code == 403
    assert response.headers["x-request-id"] == "1234"
    assert response.json()["errors"][0]["code"] == "DENIED"
    assert response.text == body
    assert response.url == f"{server.url}/v2/team/app/manifests/v1"
    assert response.request.method == "GET"
    assert response.request.url == response.url
    assert info.value.request is response.request
    with pytest.raises(requests.HTTPError):
        response.raise_for_status()


PASSWORD = "pä55 w+rd/of\"alice'?&"


@pytest.mark.parametrize("way", forms(PASSWORD))
def test_a_password_that_is_repeated_is_in_no_exception(
    server: ScriptedServer, transport: Transport, way: str
) -> None:
    form = forms(PASSWORD)[way]
    login = CredentialProviders(Credentials("alice", PASSWORD))
    client = RegistryClient(
        Endpoint(transport, server.url, providers=login), "team/app", policy=FAST
    )
    header = form.encode().decode("latin-1")
    challenge = f'Basic realm="r", error_description="{header}"'
    server.respond(
        "*",
        ".*",
        ScriptedResponse(401, b"", (("WWW-Authenticate", 'Basic realm="r"'),)),
        ScriptedResponse(
            401,
            f"wrong: {form}".encode(),
            (("WWW-Authenticate", challenge), ("Warning", f'299 - "{header}"')),
        ),
    )

    with pytest.raises(ConcilError) as info:
        client.get_manifest("v1")

    assert form not in texts(info.value)
    assert PASSWORD not in texts(info.value)
    assert "wrong: " in str(info.value)


def test_credentials_that_were_set_on_a_session_are_hidden(server: ScriptedServer) -> None:
    server.respond("GET", ".*", reply(403, "who is bob:pa55-on-a-session?"))
    with create_session() as session:
        session.auth = ("bob", "pa55-on-a-session")
        endpoint = Endpoint(Transport(session), server.url)

        with pytest.raises(StatusError) as info:
            endpoint.send(Call("GET", "/v2/"))

    assert len(server.matching_requests("GET")[0].headers["authorization"]) > 10
    assert "pa55-on-a-session" not in texts(info.value)


@pytest.mark.parametrize("where", ["session", "environment"])
def test_the_password_of_a_proxy_is_hidden(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    password = f"pr%2Fxy-{where}"
    proxy = f"http://carol:{password}@{server.host}"
    server.respond("*", ".*", reply(407, f"carol may not with pr/xy-{where} ({password})"))
    with create_session() as session:
        if where == "session":
            session.proxies = {"http": proxy}
        else:
            monkeypatch.setenv("http_proxy", proxy)
            monkeypatch.setenv("no_proxy", "")

        with pytest.raises(StatusError) as info:
            Endpoint(Transport(session), "http://registry.example").send(Call("GET", "/v2/"))

    assert "carol may not" in str(info.value)
    assert f"xy-{where}" not in texts(info.value)


def test_the_cause_of_a_loss_is_clean_and_stays() -> None:
    request = requests.Request(
        "GET", "http://h/v2/?sig=s1gned-url", headers={"Authorization": "Bearer t0ken-of-eve"}
    ).prepare()
    cause = requests.ConnectionError(
        "Max retries exceeded with url: /v2/?sig=s1gned-url (t0ken-of-eve)", request=request
    )

    error = errors.translate(cause, "GET http://h/v2/", has_answered=True)
    error.__cause__ = cause

    assert "Max retries exceeded" in texts(error)
    assert "s1gned-url" not in texts(error)
    assert "t0ken-of-eve" not in texts(error)
    assert cause.request is not None
    assert cause.request.url == "http://h/v2/"


def test_a_header_that_cannot_be_sent_is_not_shown(
    server: ScriptedServer, transport: Transport, secret: str
) -> None:
    for value in (f"\u1234{secret}", f"{secret}\r\nx: y"):
        call = Call("GET", "/v2/", headers={"Authorization": f"Bearer {value}"})

        with pytest.raises(ConcilError) as info:
            Endpoint(transport, server.url).send(call)

        assert secret not in texts(info.value)


def test_the_digest_of_a_blob_is_no_secret(server: ScriptedServer, storage: ScriptedServer) -> None:
    digest = digest_of(b"content")
    server.respond(
        "GET", ".*", reply(307, Location=f"{storage.url}/blobs/{digest}?X-Amz-Signature=12345678")
    )
    storage.respond("GET", ".*", reply(403, f"no {digest}"))
    with create_session() as session, pytest.raises(StatusError) as info:
        Endpoint(Transport(session), server.url).send(Call("GET", f"/v2/a/blobs/{digest}"))

    assert f"no {digest}" in str(info.value)
