"""Known secrets are taken out of texts, in whatever encoding, and nothing else is."""

from __future__ import annotations

import base64
import os
import pickle
import threading
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concil.auth.credentials.credentials import Credentials
from concil.errors import ConcilError, ConnectionLost, TLSFailure, safe_repr
from concil.runtime.redaction import SECRETS, Redactor
from tests.support.secret_search import forms

SECRET = 'pä55 w+rd/of"al\\ice?&'
LONG = "eyJhbGciOiJSUzI1NiJ9." + "".join(f"{n:03d}x" for n in range(300))


def redacted(secret: str, text: str) -> str:
    redactor = Redactor()
    redactor.register(secret)
    return redactor.redact(text)


@pytest.mark.parametrize("way", forms(SECRET))
@pytest.mark.parametrize("secret", [SECRET, "pa55-of-alice", "pa/55+~"])
def test_a_secret_is_found_in_every_encoding(secret: str, way: str) -> None:
    form = forms(secret)[way]

    text = redacted(secret, f"wrong password <{form}> of alice")

    assert form not in text
    assert text.startswith("wrong password <")
    assert text.endswith("> of alice")
    assert "<hidden>" in text
    # Of Base64 nothing is left but the user in front of it, and the padding.
    left = text.removeprefix("wrong password <").removesuffix("> of alice").replace("<hidden>", "")
    assert left.replace("%3D", "").strip("=") in ("", "YWxp", "YWxpY2U6", "YWxpY2")


@given(
    secret=st.text(min_size=6, max_size=40),
    before=st.binary(max_size=5),
    after=st.binary(max_size=5),
)
def test_no_base64_of_a_longer_content_shows_a_secret(
    secret: str, before: bytes, after: bytes
) -> None:
    content = secret.encode(errors="surrogatepass")
    encoded = base64.b64encode(before + content + after).decode()

    text = redacted(secret, encoded)

    first, last = len(before) * 4 // 3, -(-(len(before) + len(content)) * 4 // 3)
    assert len(text.replace("<hidden>", "").rstrip("=")) <= len(encoded) - (last - first)


@given(secret=st.text(min_size=6, max_size=40), around=st.text(max_size=20))
def test_an_encoded_secret_is_hidden_whatever_stands_around_it(secret: str, around: str) -> None:
    secret = secret.encode(errors="replace").decode()
    text = urllib.parse.quote(secret, safe="")

    assert "<hidden>" in redacted(secret, f"{around} {text} {around}")


def test_a_bare_secret_in_a_header_is_found_although_headers_are_read_as_latin_1() -> None:
    assert redacted(SECRET, SECRET.encode().decode("latin-1")) == "<hidden>"


@pytest.mark.parametrize("length", [32, 40, 400, len(LONG)])
def test_a_long_secret_that_was_cut_is_hidden(length: int) -> None:
    assert redacted(LONG, f"token {LONG[:length]}...") == "token <hidden>..."


@pytest.mark.parametrize("secret", ["", "a", "ab", "abc"])
def test_short_secrets_are_not_looked_for(secret: str) -> None:
    assert redacted(secret, "abc abcabc a b c") == "abc abcabc a b c"


def test_a_rather_short_secret_is_hidden_as_a_word_only() -> None:
    text = redacted("push", "cannot push: pushed, user:push@host")

    assert text == "cannot <hidden>: pushed, user:<hidden>@host"


def test_marks_stay_what_they_are() -> None:
    redactor = Redactor()
    redactor.register("hidden", "session")
    once = redactor.redact("hidden session <hidden> <session>")

    assert once == "<hidden> <hidden> <hidden> <session>"
    assert redactor.redact(once) == once


def test_secrets_that_overlap_are_hidden_as_one() -> None:
    redactor = Redactor()
    redactor.register("secret-of", "of-alice", "secret-of-alice-too")

    assert redactor.redact("a secret-of-alice b") == "a <hidden> b"
    assert redactor.redact("a secret-of-alice-too b") == "a <hidden> b"


KNOWN = "/v2/team2024app/blobs/uploads/"


@pytest.mark.parametrize(
    ("location", "text", "shown"),
    [
        ("/v2/r/blobs/upload/1d-1d", "PUT /v2/r/blobs/upload/1d-1d?digest=x", "PUT /<session>?..."),
        ("/a-uploads/n/uploads/S3CRET-id", "no upload S3CRET-id", "no upload <session>"),
        ("/upload/x;sig=s1gnature", "bad s1gnature", "bad <session>"),
        ("/v2/r/up?_state=st4te%3D%3Dx", "bad state st4te==x", "bad state <session>"),
        ("/v2/r/up?_state=st4te%3D%3Dx", "bad query _state=st4te%3D%3Dx", "bad query <session>"),
        ("http://h/up", "PUT http://h/up: lost", "PUT http://h/<session>: lost"),
        (f"http://h{KNOWN}9f8e-7d6c", f"PUT http://h{KNOWN}9f8e-7d6c", f"PUT http://h{KNOWN}<..."),
    ],
)
def test_a_session_is_hidden_whole_and_in_parts(location: str, text: str, shown: str) -> None:
    redactor = Redactor()
    redactor.register_session(location, KNOWN)

    assert redactor.redact(text).startswith(shown.removesuffix("..."))


def test_a_session_hides_nothing_that_was_asked_for() -> None:
    redactor = Redactor()
    location = f"https://team2024app.example{KNOWN}9f8e-7d6c?digest=sha256:12345678"
    redactor.register_session(location, KNOWN)
    redactor.register_session("https://h/other/team2024app/9f8e-7d6c", KNOWN)

    text = "https://team2024app.example/v2/other/manifests/sha256:12345678 team2024app"
    assert redactor.redact(text) == text


def test_a_signed_url_hides_its_query_and_not_its_path() -> None:
    redactor = Redactor()
    redactor.register_signed("https://s3/b/sha256/12/1234567890?X-Amz-Signature=abcdef0123&n=12")

    assert redactor.redact("/b/sha256/12/1234567890: abcdef0123") == (
        "/b/sha256/12/1234567890: <hidden>"
    )


def test_no_url_is_too_odd_to_be_hidden() -> None:
    redactor = Redactor()
    for odd in ("http://[half", "//[x", "", "?", ";", "http://h:port/x?y", "\ud800?a=\ud800"):
        redactor.register_session(odd)
        redactor.register_signed(odd)

    assert redactor.redact("plain text") == "plain text"


def test_memory_is_bounded_and_what_came_last_is_known() -> None:
    redactor = Redactor()
    redactor.register("the-password")
    for number in range(5000):
        redactor.register(f"t0ken-{number}-of-many", kind="token")
        query = f"_state={number}-st4te&more={'x' * 1000}"
        redactor.register_session(f"/v2/a/blobs/uploads/{number}-1d?{query}")
        if number % 1000 == 0:
            redactor.redact("work that was put off")

    assert redactor.redact("the-password t0ken-4999-of-many 4999-st4te") == (
        "<hidden> <hidden> <session>"
    )
    assert redactor.redact("t0ken-1-of-many") == "t0ken-1-of-many"
    assert sum(map(len, redactor._index.values())) < 30_000


def test_a_large_value_displaces_no_password() -> None:
    redactor = Redactor()
    redactor.register("the-password")
    redactor.register_session("/" + "1" * (2 << 20))

    assert redactor.redact("the-password") == "<hidden>"


def test_threads_may_register_and_redact_at_once() -> None:
    redactor = Redactor()
    failures: list[str] = []

    def work(name: int) -> None:
        for number in range(300):
            secret = f"s3cret-{name}-{number}-x"
            redactor.register(secret, kind="token")
            if secret in redactor.redact(f"no {secret} here"):
                failures.append(secret)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert failures == []


@pytest.mark.parametrize("kind", [ConcilError, ConnectionLost, TLSFailure])
def test_the_text_of_an_exception_is_clean(kind: type[ConcilError]) -> None:
    SECRETS.register("s3cret-of-an-exception")

    error = kind("it said s3cret-of-an-exception")

    assert str(error) == "it said <hidden>"
    assert error.args == ("it said <hidden>",)
    assert "s3cret" not in repr(error)
    assert "s3cret" not in repr(pickle.loads(pickle.dumps(error)))


def test_a_quoted_text_is_clean_before_it_is_cut() -> None:
    SECRETS.register("s3cret-at-the-cut")

    for length in range(170):
        assert "s3cret" not in safe_repr("x" * length + " s3cret-at-the-cut", 160)


def test_credentials_are_secret_from_then_on() -> None:
    Credentials("bob", "pa55-of-bob", "1dentity-of-bob", "b3arer-of-bob")
    pair = base64.b64encode(b"bob:pa55-of-bob").decode()

    text = str(ConcilError(f"pa55-of-bob 1dentity-of-bob b3arer-of-bob {pair}"))

    assert "of-bob" not in text
    assert pair not in text


def test_a_password_of_three_characters_is_hidden_in_what_was_sent() -> None:
    sent = Credentials("carol", "abc").basic_header().removeprefix("Basic ")

    assert sent not in str(ConcilError(f"refused: {sent}"))


def test_credentials_that_come_from_another_process_are_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packed = pickle.dumps(Credentials("dave", "pa55-of-dave", source="a file"))
    there = Redactor()
    monkeypatch.setattr("concil.auth.credentials.credentials.SECRETS", there)

    found = pickle.loads(packed)

    assert found == Credentials("dave", "pa55-of-dave")
    assert found.source == "a file"
    assert there.redact("pa55-of-dave") == "<hidden>"


def test_a_forked_child_knows_the_secrets_and_hangs_on_no_lock() -> None:
    SECRETS.register("s3cret-of-the-parent")
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with SECRETS.lock:
            held.set()
            done.wait(5)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(5)
    threading.Timer(0.2, done.set).start()
    child = os.fork()
    if child == 0:
        os._exit(0 if SECRETS.redact("s3cret-of-the-parent") == "<hidden>" else 1)
    thread.join(30)

    assert os.waitpid(child, 0)[1] == 0
