"""What a person sees of a hostile registry: nothing that steers a terminal, and no secret."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from concil.cli.main import main
from concil.oci.media_types import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from concil.store.layout.store import LayoutDirectory
from tests.cli.terminal import Terminal
from tests.hostile.hostile_registry import (
    BASIC,
    BLOB,
    PASSWORD,
    SECRETS,
    TOKEN,
    USER,
    HostileRegistry,
    descriptor,
    image,
    index,
)
from tests.support.scripted_server import ScriptedResponse, reply

pytestmark = pytest.mark.slow

# A title, a cleared screen, colours by C1, right to left, back and over: all at once.
EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\r\x08\x7f\u2028$"
LATIN = EVIL.encode().decode("latin-1")  # as a header has it
HEADER = LATIN.replace("\r", "")
SIGNATURE = "s1gnature-of-a-url"
OWN_CODES = re.compile(r"\x1b\[\d*[AKJ]")  # those of the bars


class Shell:
    """Runs the command line on a terminal; what it writes may not steer that."""

    def __init__(self, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stream = terminal.stream
        self._terminal, self._monkeypatch = terminal, monkeypatch

    def __call__(self, *words: str | Path) -> int:
        """Run it; return its exit code."""
        with self._monkeypatch.context() as patched:
            patched.setattr("sys.stdout", self.stream)
            patched.setattr("sys.stderr", self.stream)
            patched.setenv("NO_COLOR", "1")  # else its own colours would hide those of others
            return main([str(word) for word in words])

    @property
    def written(self) -> str:
        """All that was written so far."""
        self._terminal.stream.write("\nEND OF IT\n")
        self._terminal.stream.flush()
        self._terminal.wait_for("END OF IT")
        return self._terminal.written


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    with Terminal(200) as terminal:
        shell = Shell(terminal, monkeypatch)
        yield shell
        written = shell.written
        plain = OWN_CODES.sub("", written)
        odd = {c for c in plain if not (c.isprintable() or c in "\n\r\t")}
        assert not odd, ascii(plain)
        assert "$" in plain or "not told" in plain, "nothing of what it said was shown"
        for secret in (*SECRETS, SIGNATURE):
            assert secret not in written


def commands(hostile: HostileRegistry, tmp_path: Path) -> list[list[str]]:
    """Every verb that asks a registry."""
    host, path = f"http://{hostile.registry.host}/app", tmp_path / "file"
    path.write_bytes(BLOB)
    (tmp_path / "list").write_text(f"{host}:v1\n")
    digest = descriptor(BLOB)["digest"]
    access = ["--creds", f"{USER}:{PASSWORD}", "--retry", "1"]
    both = ["--src-creds", f"{USER}:{PASSWORD}", "--retry", "1"]
    return [
        ["tags", host, *access],
        ["digest", f"{host}:v1", *access],
        ["manifest", f"{host}:v1", *access],
        ["inspect", f"{host}:v1", *access],
        ["delete", f"{host}:v1", *access],
        ["copy", f"{host}:v1", f"oci:{tmp_path / 'layout'}:v1", *both],
        ["copy", f"{host}:v1", f"{host}2:v1", *both],
        ["mirror", str(tmp_path / "list"), f"oci:{tmp_path / 'layout'}", *both],
        ["blob", "pull", f"{host}@{digest}", "-o", str(tmp_path / "out"), *access],
        ["blob", "push", str(path), host, *access],
    ]


ERRORS = {
    "JSON": reply(
        400,
        json.dumps({"errors": [{"code": EVIL, "message": EVIL, "detail": EVIL + "more"}]}),
    ),
    "text": reply(403, EVIL * 50),
    "a long text": reply(500, "$" * 60_000),
    "JSON that is none": reply(404, '{"errors": [' + EVIL),
    "nothing but headers": reply(
        404,
        "$",
        Warning=f'299 - "{HEADER}"',
        Server=HEADER,
        Docker_Content_Digest=HEADER,
        Content_Type=HEADER,
        Retry_After=HEADER,
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_steers_no_terminal(
    hostile: HostileRegistry, shell: Shell, tmp_path: Path, name: str
) -> None:
    hostile.registry.respond("*", "/v2/.*", ERRORS[name])

    codes = [shell("-vv", *words) for words in commands(hostile, tmp_path)]

    assert 0 not in codes
    assert 2 not in codes


@pytest.mark.parametrize(
    "answer",
    [
        reply(401, "$", WWW_Authenticate=f'Bearer realm="{HEADER}",service="{HEADER}"'),
        reply(401, "$", WWW_Authenticate=f'Basic realm="{HEADER}"'),
        reply(307, "$", Location=f"http://{HEADER}/x"),
        reply(307, "$", Location=f"/v2/{HEADER}"),
        reply(200, "$", Content_Encoding=HEADER),
    ],
)
def test_a_header_steers_no_terminal(
    hostile: HostileRegistry, shell: Shell, tmp_path: Path, answer: ScriptedResponse
) -> None:
    hostile.registry.respond("*", "/v2/.*", answer)

    for words in commands(hostile, tmp_path)[:6]:
        shell("-vv", *words)

    print("not told", file=shell.stream)


def test_a_token_service_steers_no_terminal(
    hostile: HostileRegistry, shell: Shell, tmp_path: Path
) -> None:
    for body in (EVIL, json.dumps({"token": EVIL}), json.dumps({"errors": [{"message": EVIL}]})):
        hostile.registry.respond("GET", "/token.*", reply(200, body), reply(403, body))
        shell("-vv", *commands(hostile, tmp_path)[0])
        shell("-vv", *commands(hostile, tmp_path)[5])


def test_tags_steer_no_terminal(hostile: HostileRegistry, shell: Shell, tmp_path: Path) -> None:
    hostile.serve("tags/list", reply(200, json.dumps({"tags": [EVIL, "v1" + EVIL, "\n\n$"]})))

    assert shell("-vv", *commands(hostile, tmp_path)[0]) == 0


NOTES = {EVIL: EVIL, "org.opencontainers.image.title": f"../../{EVIL}"}


def test_an_image_steers_no_terminal(
    hostile: HostileRegistry, shell: Shell, tmp_path: Path
) -> None:
    config = json.dumps({"os": EVIL, "architecture": EVIL, "config": {"Labels": NOTES}}).encode()
    document = image(
        config=descriptor(config, OCI_CONFIG),
        annotations=NOTES,
        layers=[descriptor(BLOB, annotations=NOTES)],
        artifactType=EVIL,
    )
    raw = json.dumps(document, ensure_ascii=False).encode()
    raw = raw.replace(b"\\u001b", b"\\u001b\xc2\x9b\x7f\xe2\x80\xae")  # what JSON lets through
    hostile.serve_manifest(raw, f"{OCI_MANIFEST}; x={HEADER}")
    hostile.serve_blob(config)
    hostile.serve_blob(BLOB)

    for words in commands(hostile, tmp_path)[:6]:
        shell("-vv", *words)


def test_an_index_steers_no_terminal(
    hostile: HostileRegistry, shell: Shell, tmp_path: Path
) -> None:
    place = {"os": EVIL, "architecture": EVIL, "variant": EVIL}
    child = descriptor(b"x", OCI_MANIFEST, platform=place, annotations=NOTES)
    hostile.serve_manifest(index(child, annotations=NOTES), OCI_INDEX)

    for words in commands(hostile, tmp_path)[2:6]:
        shell("-vv", *words, "--platform", "linux/amd64")
        shell("-vv", *words)


def test_a_layout_steers_no_terminal(shell: Shell, tmp_path: Path) -> None:
    LayoutDirectory(tmp_path / "layout", create=True)
    entries = [
        descriptor(b"%d" % number, OCI_MANIFEST, annotations={key: f"{EVIL}{number}"})
        for number in range(3)
        for key in ("org.opencontainers.image.ref.name", "io.containerd.image.name")
    ]
    (tmp_path / "layout" / "index.json").write_text(json.dumps(index(*entries)))

    assert shell("-vv", "tags", f"oci:{tmp_path / 'layout'}") == 0
    assert shell("-vv", "inspect", f"oci:{tmp_path / 'layout'}") != 0
    assert shell("-vv", "inspect", f"oci:{tmp_path / 'layout'}:none") != 0


def test_no_secret_is_shown_at_vv(hostile: HostileRegistry, shell: Shell, tmp_path: Path) -> None:
    """A token, a session, a signed URL, a password of a redirect: all go over the wire."""
    hostile.serve_manifest(image())
    hostile.serve_blob(b"{}")
    url = f"{hostile.storage.url}/key?X-Amz-Signature={SIGNATURE}&X-Amz-Security-Token={SIGNATURE}"
    hostile.serve(f"blobs/{descriptor(BLOB)['digest']}", reply(307, Location=url))
    hostile.storage.respond("GET", "/key.*", reply(500, f"no key for {url} $"), reply(200, BLOB))
    session = f"/v2/app/blobs/uploads/{SIGNATURE}?_state={SIGNATURE}"
    hostile.serve("POST blobs/uploads/", reply(202, Location=session))
    refused = ScriptedResponse(
        400,
        f"Basic {BASIC} bearer\t{TOKEN} $".encode(),
        (("Location", session), ("Set-Cookie", f"a={SIGNATURE}")),
    )
    hostile.serve(f"PUT blobs/uploads/{SIGNATURE}", refused)

    codes = [shell("-vv", *words) for words in commands(hostile, tmp_path)]

    assert 0 in codes
