"""What registries say in Warning headers: read as it is written, kept and logged once."""

from __future__ import annotations

import json
import logging
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concil import Engine, Journal, RegistryWarning
from concil.http.warning_header import WarningLog, parse_warnings
from concil.runtime.redaction import SECRETS
from tests.support.scripted_server import ScriptedResponse, ScriptedServer

SOON = '299 - "this registry ends in May"'


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (SOON, ["this registry ends in May"]),
        (f'{SOON}, 299 - "a, b"', ["this registry ends in May", "a, b"]),
        ('299 - "say \\"please\\" \\\\ now"', ['say "please" \\ now']),
        ('299 - "dated" "Wed, 21 Oct 2015 07:28:00 GMT",299 - "other"', ["dated", "other"]),
        ('110 cache "stale", 299 - "mine"', ["mine"]),
        ('299 proxy.example "from the way"', []),
        ('112 - "a quoted 299 - \\"text\\" in it"', []),
        ('299 - "open', []),
        ('299 - ""', []),
        ('299 - " \t "', []),
        ("nonsense", []),
        ("", []),
        ('299 - "a\x1b[31m\x9b\x00b\n c"', ["a [31m b c"]),
        ('299 - "' + "é".encode().decode("latin-1") + '"', ["é"]),
        ('299 - "\xe9"', ["é"]),
        ('299 - "see https://u:pw@h.example/x?sig=secret"', ["see https://h.example/x"]),
        ('299 - "you sent Bearer abcdefghi"', ["you sent Bearer <hidden>"]),
    ],
)  # fmt: skip
def test_a_header_is_read(header: str, found: list[str]) -> None:
    assert list(parse_warnings(header)) == found


def test_a_known_secret_in_a_header_is_hidden() -> None:
    SECRETS.register("open sesame 5")

    assert list(parse_warnings('299 - "you said open%20sesame%205"')) == ["you said <hidden>"]


def test_a_header_without_end_says_little() -> None:
    (text,) = parse_warnings(f'299 - "{"x" * 3000}"')
    assert len(text) == 500
    assert list(parse_warnings(f'299 - "{"x" * 5000}"')) == []
    assert len(list(parse_warnings(", ".join(f'299 - "{n}"' for n in range(100))))) == 10


@given(st.text(alphabet='29 -"\\,\x1b\na', max_size=60))
def test_any_header_is_one_printable_line_or_nothing(header: str) -> None:
    for text in parse_warnings(header):
        assert text
        assert text.isprintable()


def test_there_is_a_most_of_warnings() -> None:
    log = WarningLog()
    for number in range(300):
        log.record("a.example", f'299 - "{number}"')

    assert [one.text for one in log.list()] == [str(number) for number in range(100)]


def test_each_is_logged_once_whichever_thread_comes_first(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = WarningLog()
    start = threading.Barrier(8, timeout=30)

    def record() -> None:
        start.wait()
        for _ in range(50):
            log.record("a.example", SOON)

    threads = [threading.Thread(target=record) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.record("b.example", SOON)

    assert [record.getMessage() for record in caplog.records] == [
        "a.example warns: this registry ends in May",
        "b.example warns: this registry ends in May",
    ]


def test_an_engine_has_what_its_registries_said(caplog: pytest.LogCaptureFixture) -> None:
    with ScriptedServer() as server, Engine(journal=Journal(None)) as engine:
        headers = (("Warning", SOON), ("Warning", '299 - "twice"'))
        server.respond("*", "/v2/", ScriptedResponse(200, b"{}"))
        server.respond(
            "GET", "/v2/.*", ScriptedResponse(200, json.dumps({"tags": ["v1"]}).encode(), headers)
        )
        assert engine.warnings == ()

        for _ in range(3):
            assert list(engine.list_tags(f"{server.url}/app")) == ["v1"]

        said = [RegistryWarning(server.host, "this registry ends in May")]
        assert engine.warnings == (*said, RegistryWarning(server.host, "twice"))
    told = [r for r in caplog.records if r.name.startswith("concil.") and "warns" in r.getMessage()]
    assert len(told) == 2
    assert all(record.levelno == logging.WARNING for record in told)
