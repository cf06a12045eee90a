"""What goes wrong below HTTP, and what error answers say, as errors for a person."""

from __future__ import annotations

import email.utils
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from concil.config import Timeouts
from concil.errors import (
    Cancelled,
    ConcilError,
    ConnectionLost,
    ProtocolViolation,
    QuotaExceeded,
    RegistryDenied,
    RegistryNotFound,
    RegistryQuotaExceeded,
    StatusError,
    TLSFailure,
    Unreachable,
)
from concil.http import errors as failures
from concil.http import status_errors
from concil.http.requests_session import TLSSettings, create_session
from concil.http.transport import Transport
from concil.retry import is_retryable
from tests.support.quick_retries import UNTIMED
from tests.support.scripted_server import NO_RESPONSE, ScriptedResponse, ScriptedServer
from tests.support.tls import CertificateAuthority


def ask(url: str, *, tls: TLSSettings | None = None, idle: float = 10) -> requests.Response:
    with create_session(tls) as session:
        timeouts = Timeouts(connect=5, idle=idle)
        response = Transport(session, timeouts=timeouts).send(requests.Request("GET", url))
        response.close()
        return response


def refused_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def told(error: ConcilError) -> str:
    """The message, which is one line for a person."""
    text = str(error)
    assert "\n" not in text
    assert "0x" not in text  # an address of an object
    return text


def test_refused() -> None:
    with pytest.raises(Unreachable, match="the connection was refused") as caught:
        ask(f"http://127.0.0.1:{refused_port()}/v2/?_state=secret")

    assert "secret" not in told(caught.value)
    assert not caught.value.has_answered_before
    assert isinstance(caught.value, requests.ConnectionError)
    assert caught.value.remedy


def test_an_unknown_name() -> None:
    with pytest.raises(Unreachable, match="the host name is not known") as caught:
        ask("https://nowhere.invalid/v2/")

    assert told(caught.value).startswith("cannot reach the registry nowhere.invalid: ")


@pytest.mark.parametrize("label", ["a" * 64, "a..b"])
def test_a_name_that_no_resolver_takes_is_not_tried_again(label: str) -> None:
    with pytest.raises(ProtocolViolation, match="cannot be sent"):
        ask(f"https://{label}.example/v2/")


def test_a_host_that_has_answered_before_is_only_away(transport: Transport) -> None:
    with ScriptedServer() as server:
        server.respond("GET", "/v2/", ScriptedResponse(200, cut="fin"))
        transport.send(requests.Request("GET", server.url + "/v2/")).close()

    with pytest.raises(Unreachable) as caught:
        transport.send(requests.Request("GET", server.url + "/v2/"))

    assert caught.value.has_answered_before


def test_no_answer_for_too_long(server: ScriptedServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]

        with pytest.raises(
            ConnectionLost, match="no data was received within the timeout"
        ) as caught:
            ask(f"http://127.0.0.1:{port}/", idle=0.05)

    assert not isinstance(caught.value, Unreachable)


def test_closed_without_an_answer(server: ScriptedServer) -> None:
    server.respond("GET", "/v2/", NO_RESPONSE)

    with pytest.raises(ConnectionLost) as caught:
        ask(f"{server.url}/v2/")

    host = server.url.partition("://")[2]
    assert told(caught.value).startswith(f"cannot reach the registry {host}: the connection was")
    assert (caught.value.host, caught.value.reason) == (host, "the connection was closed")


def test_reset(server: ScriptedServer) -> None:
    server.respond("GET", "/v2/", ScriptedResponse(0, cut="rst"))

    with pytest.raises(ConnectionLost, match="the connection was reset"):
        ask(f"{server.url}/v2/")


def test_an_untrusted_certificate(ca: CertificateAuthority) -> None:
    with (
        ScriptedServer(context=ca.issue().server_context()) as server,
        pytest.raises(TLSFailure, match="certificate is not trusted") as caught,
    ):
        ask(f"{server.url}/v2/")

    assert caught.value.is_downgrade_forbidden
    assert isinstance(caught.value, requests.exceptions.SSLError)
    assert "verify=FILE" in caught.value.remedy
    told(caught.value)


def test_a_certificate_for_another_name(ca: CertificateAuthority) -> None:
    with (
        ScriptedServer(context=ca.issue("elsewhere.example").server_context()) as server,
        pytest.raises(TLSFailure, match=r"not trusted.*mismatch") as caught,
    ):
        ask(f"{server.url}/v2/", tls=TLSSettings(str(ca.path)))

    assert caught.value.is_downgrade_forbidden


@pytest.mark.parametrize("plain", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n"])
def test_no_tls_at_all(plain: bytes) -> None:
    with ScriptedServer(plain=plain) as server, pytest.raises(ConcilError) as caught:
        ask(f"https://{server.host}/v2/")

    assert isinstance(caught.value, (TLSFailure, ConnectionLost))
    if plain:
        assert "does not speak TLS" in told(caught.value)
    assert not getattr(caught.value, "is_downgrade_forbidden", False)


@pytest.mark.parametrize("content", [None, b"no certificate\n"])
def test_a_ca_file_that_is_none(
    ca: CertificateAuthority, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)

    with (
        ScriptedServer(context=ca.issue().server_context()) as server,
        pytest.raises(TLSFailure, match=r"CA or .*certificate file") as caught,
    ):
        ask(f"{server.url}/v2/", tls=TLSSettings(str(path)))

    assert caught.value.is_downgrade_forbidden  # nothing weaker is tried


def test_a_client_certificate_that_is_missing(ca: CertificateAuthority) -> None:
    with (
        ScriptedServer(context=ca.issue().server_context()) as server,
        pytest.raises(TLSFailure, match=r"certificate file '/nowhere/client\.pem'"),
    ):
        ask(f"{server.url}/v2/", tls=TLSSettings(str(ca.path), cert="/nowhere/client.pem"))


def test_a_proxy_that_is_away(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{refused_port()}")

    with pytest.raises(Unreachable, match="the proxy cannot be reached"):
        ask("http://reg.example/v2/")


def test_our_own_errors_pass_through() -> None:
    error = Cancelled("stop")

    assert failures.translate(error, "GET x", has_answered=True) is error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (requests.exceptions.InvalidURL("x"), ProtocolViolation),
        (requests.exceptions.InvalidHeader("x"), ProtocolViolation),
        (requests.exceptions.MissingSchema("x"), ProtocolViolation),
        (requests.exceptions.ChunkedEncodingError("IncompleteRead(3)"), ConnectionLost),
        (
            requests.exceptions.SSLError(ssl.SSLError(1, "[SSL: SSLV3_ALERT_HANDSHAKE_FAILURE]")),
            TLSFailure,
        ),
        (requests.exceptions.SSLError("EOF occurred in violation of protocol"), ConnectionLost),
        (ConnectionResetError(104, "x"), ConnectionLost),
    ],
)
def test_each_cause_has_its_kind(error: Exception, kind: type[ConcilError]) -> None:
    assert type(failures.translate(error, "GET x", has_answered=False)) is kind


def answer(
    status: int, body: bytes | str = b"", reason: str = "", **headers: str
) -> tuple[requests.Response, bytes]:
    response = requests.Response()
    response.status_code, response.reason = status, reason
    response.url = "https://reg.example/v2/team/app/blobs/x?_state=secret"
    response.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return response, body.encode() if isinstance(body, str) else body


def errors(*entries: object) -> str:
    return json.dumps({"errors": entries})


@pytest.mark.parametrize(
    ("body", "ending"),
    [
        pytest.param(
            errors({"code": "NAME_UNKNOWN", "message": "no such repository"}),
            ": NAME_UNKNOWN: no such repository",
            id="the specification's form",
        ),
        pytest.param(
            errors({"code": "A", "message": "a"}, {"code": "B", "message": "b"}),
            ": A: a; B: b",
            id="two errors",
        ),
        pytest.param(
            errors({"status": 400, "message": "artifactory"}), ": artifactory", id="no code"
        ),
        pytest.param(errors({"code": "DENIED"}), ": DENIED", id="no message"),
        pytest.param(
            errors({"code": "DENIED", "message": "m", "detail": "why"}),
            ": DENIED: m (why)",
            id="a detail",
        ),
        pytest.param(
            errors({"code": "DENIED", "detail": "why"}), ": DENIED: why", id="only a detail"
        ),
        pytest.param(
            errors({"code": "X", "message": 5, "detail": {"a": 1}}), ": X", id="odd fields"
        ),
        pytest.param(errors("text", None, 3), "secret-free", id="no objects"),
        pytest.param('{"errors": 7}', "", id="no list"),
        pytest.param('{"details": "too slow"}', "too slow", id="details"),
        pytest.param("rate exceeded\n", ": rate exceeded", id="text"),
        pytest.param(
            "<html><title>Log in &amp; go\n on</title></html>",
            ": the answer is a web page ('Log in & go on'), not that of a registry",
            id="a web page",
        ),
        pytest.param(
            "<!DOCTYPE html><p>",
            ": the answer is a web page, not that of a registry",
            id="no title",
        ),
        pytest.param("<?xml version='1.0'?><Error>x</Error>", "", id="XML says nothing"),
        pytest.param(b"\xff\xfe", "", id="no text at all"),
        pytest.param("[" * 100_000, "", id="deep"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_the_message_holds_what_the_registry_said(body: str | bytes, ending: str) -> None:
    response, content = answer(400, body, "Bad Request")

    error = status_errors.create_status_error(response, content)

    text = told(error)
    assert text.startswith("400 Bad Request")
    assert text.endswith(" (cannot read blob reg.example/team/app:x)")
    assert error.summary.startswith("cannot read blob reg.example/team/app:x: 400 Bad Request")
    assert error.host == "reg.example"
    assert "secret" not in text.replace("secret-free", "")
    assert "<html" not in text
    if ending not in ("secret-free", ""):
        assert ending in text
    assert len(text) < 800


def test_control_characters_do_not_reach_a_terminal() -> None:
    evil = "\x1b[31mred\r\nGET /\u202egnp\x00"
    response, content = answer(400, errors({"code": "C", "message": evil}), "Bad\x1b[0m\r\n")

    text = told(status_errors.create_status_error(response, content))

    assert text.isprintable()


@pytest.mark.parametrize(
    ("status", "kind", "start"),
    [
        (404, RegistryNotFound, "404 Not Found"),
        (401, RegistryDenied, "401 Unauthorized"),
        (403, RegistryDenied, "403 Forbidden"),
        (409, StatusError, "409 Conflict"),
        (503, StatusError, "503 Service Unavailable"),
    ],
)
def test_the_first_argument_begins_with_the_status(
    status: int, kind: type[StatusError], start: str
) -> None:
    response, content = answer(status)

    error = status_errors.create_status_error(response, content, "asked for a token")

    assert type(error) is kind
    assert error.args[0].startswith(start)
    assert error.args[0].endswith("(asked for a token)")
    assert error.response is not None
    assert error.response.status_code == status
    assert error.status == status
    assert isinstance(error, requests.HTTPError)
    assert isinstance(error, RuntimeError)


def test_codes_are_found() -> None:
    body = errors({"code": "DIGEST_INVALID"}, {"message": "no code"}, 5).encode()

    assert status_errors.error_codes(body) == ["DIGEST_INVALID"]
    assert status_errors.error_codes(b"nonsense") == []


def in_seconds(seconds: float) -> str:
    return email.utils.formatdate(time.time() + seconds, usegmt=True)


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        (lambda: "0", 0, 0),
        (lambda: " 17 ", 17, 17),
        (lambda: "100000", 100_000, 100_000),
        (lambda: "9" * 5000, threading.TIMEOUT_MAX, threading.TIMEOUT_MAX),
        (lambda: in_seconds(60), 50, 60),
        (lambda: in_seconds(100_000), 99_990, 100_000),
        (lambda: in_seconds(-60), 0, 0),
    ],
)
def test_retry_after_is_seconds_or_a_date(
    value: Callable[[], str], least: float, most: float
) -> None:
    response, content = answer(503, Retry_After=value())

    asked = status_errors.create_status_error(response, content).retry_after

    assert asked is not None
    assert least <= asked <= most


@pytest.mark.parametrize(
    ("status", "asked"),
    [(408, 7), (429, 7), (502, 7), (503, 7), (522, 7), (200, None), (404, None), (500, None)],
)
def test_retry_after_counts_for_a_busy_host(status: int, asked: float | None) -> None:
    response, content = answer(status, Retry_After="7")

    assert status_errors.create_status_error(response, content).retry_after == asked


@pytest.mark.parametrize(
    "value",
    [
        "",
        "soon",
        "-5",
        "1.5",
        "\xb2",
        "1, 2, 3",
        "Mon, 99 Foo 1",
    ],
)
def test_a_retry_after_that_makes_no_sense_is_none(value: str) -> None:
    response, content = answer(503, Retry_After=value)

    assert status_errors.create_status_error(response, content).retry_after is None


DATES = st.text("MonJan0123456789 :,+-GMT", max_size=40)


@UNTIMED
@given(st.text(st.characters(codec="latin-1"), max_size=40) | DATES)
def test_no_retry_after_raises(value: str) -> None:
    response, content = answer(503, Retry_After=value)

    asked = status_errors.create_status_error(response, content).retry_after

    assert asked is None or 0 <= asked <= threading.TIMEOUT_MAX


@UNTIMED
@given(
    st.binary(max_size=200) | st.text(max_size=100).map(lambda t: errors({"message": t}).encode())
)
def test_no_body_of_an_error_raises(body: bytes) -> None:
    response, content = answer(500, body)

    text = told_any(status_errors.create_status_error(response, content))

    assert text.startswith("500 Internal Server Error")
    assert text.isprintable()


def told_any(error: ConcilError) -> str:
    return str(error)


PULLS = "You have reached your pull rate limit. You may increase the limit by authenticating"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (errors({"code": "TOOMANYREQUESTS", "message": PULLS}), RegistryQuotaExceeded),
        (PULLS, RegistryQuotaExceeded),
        (errors({"code": "TOOMANYREQUESTS", "message": "Rate exceeded"}), StatusError),
        ("Too Many Requests", StatusError),
    ],
)
def test_a_429_for_hours_is_another_one_than_for_a_moment(
    body: str, kind: type[StatusError]
) -> None:
    response, content = answer(429, body)

    error = status_errors.create_status_error(response, content)

    assert type(error) is kind
    assert error.args[0].startswith("429 ")
    assert isinstance(error, QuotaExceeded) == (kind is RegistryQuotaExceeded)
    assert is_retryable(error) == (kind is StatusError)
