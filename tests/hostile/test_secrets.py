"""No verb shows a secret, whatever a registry repeats and however: all of them are walked."""

from __future__ import annotations

import argparse
import base64
import http.client
import itertools
import json
import os
import re
import signal
import subprocess
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import pytest

from concil.cli.argument_parser import create_parser
from concil.cli.main import main
from concil.oci.media_types import OCI_MANIFEST
from tests.cli.runner import Program, make_demo_small
from tests.hostile.hostile_registry import BLOB, descriptor, image
from tests.support.images import digest_of
from tests.support.quick_retries import drop_backoff
from tests.support.scale import FULL
from tests.support.scripted_server import (
    NO_RESPONSE,
    ReceivedRequest,
    ScriptedResponse,
    ScriptedServer,
    reply,
)
from tests.support.secret_search import forms

# A rare fault is what these tests look for: one failure is enough.
pytestmark = pytest.mark.flaky(reruns=0)

USER = "alice"
LAYER = descriptor(BLOB)["digest"]
_numbers = itertools.count()
SESSIONS = [
    "/v2/app/blobs/uploads/{}?_state={}",
    "/v2/app/blobs/upload/{}",
    "/artifacts-uploads/namespaces/p/repositories/r/uploads/{}",
    "/up;sig={}/x;more={}",
    "/signed?X-Amz-Signature={}&policy={}",
]


TROUBLES = [None, NO_RESPONSE, reply(200, b"x", Content_Encoding="odd")]
# Where a session stands and what goes wrong have nothing to do with each other.
SESSIONS_AND_TROUBLES = (
    list(itertools.product(SESSIONS, TROUBLES))
    if FULL
    else [*((each, None) for each in SESSIONS), (SESSIONS[0], TROUBLES[1])]
)


# The verbs that open upload sessions, those that list them, and one that reads only.
SENDING = {
    ("tags",),
    ("copy",),
    ("mirror",),
    ("blob", "push"),
    ("blob", "mount"),
    ("push",),
    ("attach",),
    ("transfers",),
    ("transfers", "list"),
    ("transfers", "forget"),
}


class Echo:
    """A registry that wants a token and repeats all it was told, in every encoding.

    Each has secrets of its own: one that this process knows from before would be hidden anyway.
    """

    def __init__(
        self, registry: ScriptedServer, storage: ScriptedServer, session: str = SESSIONS[0]
    ) -> None:
        number = next(_numbers)
        self.registry, self.storage = registry, storage
        self.password = f"pa55/w+rd \"{number}'"
        self.identity = f"1dentity+t0ken/{number}="
        self.token = f"t0ken-{number}-of-alice"
        self.refresh = f"refre5h-{number}-of-alice"
        self.session, self.signature = f"s3ss10n-{number}-id", f"s1gnature-{number}-x"
        self.location = session.replace("{}", self.session)
        self.known: set[str] = set()  # in this run
        registry.respond("*", ".*", self.refuse)
        registry.respond("GET", "/token.*", self._give)
        registry.respond("POST", "/token.*", self._give)
        storage.respond("*", ".*", self.refuse)

    @property
    def secrets(self) -> dict[str, str]:
        """What must not be seen, by what it is."""
        named = {
            "password": self.password,
            "identity": self.identity,
            "token": self.token,
            "refresh": self.refresh,
            "session": self.session,
            "signature": self.signature,
        }
        return {
            f"{name}, {way}": form
            for name, secret in named.items()
            for way, form in forms(secret, USER).items()
        }

    def refuse(self, seen: ReceivedRequest, status: int = 400) -> ScriptedResponse:
        """An error, or the challenge; it says all secrets that this run has sent or was given."""
        if "authorization" not in seen.headers and seen.path.startswith("/v2/"):
            return self._challenge()
        named = self.secrets.items()
        told = [form for name, form in named if name.partition(",")[0] in self.known]
        body = " | ".join(told)
        header = body.encode().decode("latin-1")
        document = {
            "errors": [{"code": "DENIED", "message": told[0], "detail": each} for each in told]
        }
        return ScriptedResponse(
            status,
            json.dumps(document).encode() if status % 2 else body.encode(),
            (("Warning", f'299 - "{header}"'), ("X-Told", header), ("Location", self.location)),
        )

    @property
    def signed(self) -> str:
        """Where a blob is."""
        return f"{self.storage.url}/key?X-Amz-Signature={self.signature}"

    def _challenge(self) -> ScriptedResponse:
        realm = f'Bearer realm="{self.registry.url}/token",service="s"'
        return ScriptedResponse(401, b"", (("WWW-Authenticate", realm),))

    def listen(self, seen: ReceivedRequest) -> None:
        """Learn what somebody shows who wants a token."""
        basic = seen.headers.get("authorization", "").startswith("Basic ")
        self.known.add("password" if basic and not seen.read() else "identity")

    def _give(self, seen: ReceivedRequest) -> ScriptedResponse:
        self.listen(seen)
        self.known |= {"token", "refresh"}
        return reply(200, json.dumps({"token": self.token, "refresh_token": self.refresh}))

    def serve_until_the_blobs(self, trouble: ScriptedResponse | None = None) -> None:
        """Let everything go well but the bytes of blobs and uploads."""
        config = b"{}"
        manifest = json.dumps(image(config=descriptor(config))).encode()

        def answer(seen: ReceivedRequest) -> ScriptedResponse:
            if "authorization" not in seen.headers:
                return self._challenge()
            return found(seen)

        def found(seen: ReceivedRequest) -> ScriptedResponse:
            path = seen.path.partition("?")[0]
            if path == "/v2/" or path.endswith("/tags/list"):
                return reply(200, json.dumps({"name": "app", "tags": ["v1"]}))
            if path.startswith("/v2/app/manifests/") and seen.method in ("GET", "HEAD"):
                digest = digest_of(manifest)
                return reply(200, manifest, Content_Type=OCI_MANIFEST, Docker_Content_Digest=digest)
            if seen.method == "HEAD":
                return reply(404)
            if path.startswith("/v2/app/blobs/sha"):
                self.known.add("signature")
                return reply(307, Location=self.signed)
            if seen.method == "POST":
                self.known.add("session")
                return reply(202, Location=self.location)
            return trouble or self.refuse(seen)

        self.registry.respond("*", "(?!/token).*", answer)
        if trouble is not None:
            self.storage.respond("*", ".*", trouble)


@pytest.fixture
def servers() -> Iterator[tuple[ScriptedServer, ScriptedServer]]:
    with ScriptedServer() as registry, ScriptedServer() as storage:
        yield registry, storage


class Walk:
    """Runs every verb, and gathers all that they leave for people to read."""

    def __init__(
        self, echo: Echo, home: Path, capfd: pytest.CaptureFixture[str], program: Program
    ) -> None:
        self._echo, self._home, self._capfd, self._program = echo, home, capfd, program
        self._host = echo.registry.host
        (home / "file").write_bytes(BLOB)
        (home / "list").write_text(f"http://{self._host}/app:v1\n")
        auth = base64.b64encode(f"{USER}:{echo.password}".encode()).decode()
        (home / "by-password.json").write_text(json.dumps({"auths": {self._host: {"auth": auth}}}))
        entry = {"auth": "PHRva2VuPjo=", "identitytoken": echo.identity}  # "<token>:"
        (home / "by-token.json").write_text(json.dumps({"auths": {self._host: entry}}))
        self.shown = ""
        self.codes: dict[str, int] = {}

    def commands(self) -> dict[tuple[str, ...], list[list[str]]]:
        """What is run, by verb."""
        registry, home = f"http://{self._host}", str(self._home)
        one, blob = f"{registry}/app:v1", f"{registry}/app@{LAYER}"
        report = [f"--report={home}/r.json", f"--report={home}/r.html"]
        return {
            ("tags",): [["tags", f"{registry}/app"]],
            ("digest",): [["digest", one]],
            ("manifest",): [["manifest", one]],
            ("inspect",): [["inspect", one]],
            ("delete",): [["delete", one]],
            ("copy",): [["copy", one, f"oci:{home}/layout:v1"], ["copy", one, f"{registry}/b:v1"]],
            ("mirror",): [["mirror", f"{home}/list", f"{registry}/mirror", *report]],
            ("blob", "push"): [["blob", "push", f"{home}/file", f"{registry}/app"]],
            ("blob", "pull"): [["blob", "pull", blob, "-o", f"{home}/out"]],
            ("blob", "head"): [["blob", "head", blob]],
            ("blob", "mount"): [["blob", "mount", blob, f"{registry}/b"]],
            ("blob", "delete"): [["blob", "delete", blob]],
            ("push",): [["push", f"{home}/file", f"{registry}/files:v1"]],
            ("pull",): [["pull", one, "-o", f"{home}/pulled"]],
            ("attach",): [
                ["attach", f"{home}/file", "--to", one, "--artifact-type", "application/x"]
            ],
            ("referrers",): [["referrers", one]],
            ("check",): [["check", one], ["check", f"{home}/list", f"{registry}/mirror", *report]],
            ("gc",): [["gc", f"oci:{home}/layout"]],
            ("ls",): [["ls", registry], ["ls", "-l", f"{registry}/app"]],
            ("tag",): [["tag", one, "v2"]],
            ("tree",): [["tree", one]],
            ("config",): [["config", one]],
            ("diff",): [["diff", one, f"{registry}/b:v1"]],
            ("du",): [["du", one]],
            ("completion",): [["completion", "bash"]],
            ("login",): [["login", registry, "-u", USER, "-p", self._echo.password]],
            ("logout",): [["logout", registry]],
            ("transfers",): [["transfers"]],
            ("transfers", "list"): [["transfers", "list"]],
            ("transfers", "forget"): [["transfers", "forget", "--all"]],
            ("serve",): [],  # by `serve`
            ("demo",): [],  # by `demo`
        }

    def run(self, words: Sequence[str], *access: str) -> int:
        """Run one command, with all that it can say."""
        self._echo.known = {"password"} if words[0] == "login" else set()
        asks = words[0] not in ("login", "logout", "transfers", "demo")
        progress = words[0] in ("copy", "mirror", "demo") or words[:2] in (
            ["blob", "push"],
            ["blob", "pull"],
        )
        extra = ["--progress=json"] if progress else []
        code = main([*words, "-vv", *extra, *(["--retry=1"] if asks else []), *access])
        self.codes[" ".join(words[:2])] = code
        out = self._capfd.readouterr()
        self.shown += f"$ {words}\n{out.out}{out.err}"
        for report in self._home.glob("r.*"):
            self.shown += report.read_text()
        return code

    def all(self, only: Collection[tuple[str, ...]] | None = None) -> None:
        """Run every verb that asks a registry, by password and by token, and the listing.

        Args:
            only: the verbs to run; None: all of them.
        """
        commands = [each for verb, each in self.commands().items() if only is None or verb in only]
        for words in itertools.chain.from_iterable(commands):
            local = words[0] in ("login", "logout", "transfers")
            for authfile in ("by-password.json", "by-token.json"):
                path = self._home / ("other.json" if local else authfile)
                mirrors = words[0] in ("copy", "mirror")
                option = [] if words[0] == "transfers" else [f"--authfile={path}"]
                both = [f"--src-authfile={path}", f"--dest-authfile={path}"]
                self.run(words, *(both if mirrors else option))

    def serve(self) -> str:
        """Run `serve`, and be a client with a password and a session; return the session."""
        directory = self._home / "served"
        directory.mkdir()
        argv = self._program.argv("serve", directory, "--addr=127.0.0.1:0", "-vv")
        with subprocess.Popen(
            argv,
            env=self._program.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.communicate()
            [host] = re.findall(r"127\.0\.0\.1:[0-9]+", line)
            connection = http.client.HTTPConnection(host, timeout=30)
            pair = base64.b64encode(f"{USER}:{self._echo.password}".encode()).decode()
            headers = {"Authorization": f"Basic {pair}"}
            connection.request("POST", "/v2/app/blobs/uploads/", headers=headers)
            answer = connection.getresponse()
            answer.read()
            location = answer.headers["Location"]
            connection.request("PATCH", location, b"12", headers)
            connection.getresponse().read()
            connection.request("DELETE", location + "x", headers=headers)
            connection.getresponse().read()
            connection.close()
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=60)
        self.shown += line + out + err
        return str(location).partition("?")[0].rpartition("/")[2]


@pytest.fixture
def home_of_walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    drop_backoff(monkeypatch)
    return tmp_path


def walk(
    servers: tuple[ScriptedServer, ScriptedServer],
    home: Path,
    capfd: pytest.CaptureFixture[str],
    session: str = SESSIONS[0],
) -> Walk:
    return Walk(Echo(*servers, session), home, capfd, Program(home))


def assert_clean(walk: Walk, echo: Echo) -> None:
    lines = walk.shown.splitlines()
    found = {
        name: [line[:400] for line in lines if secret in line][:2]
        for name, secret in echo.secrets.items()
        if secret in walk.shown
    }
    assert found == {}


def verbs(parser: argparse.ArgumentParser, before: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """Every verb of the command line that can be run."""
    nested = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    runs = parser.get_default("command")
    found = {before} if runs else set()
    for action in nested:
        for name, each in action.choices.items():
            found |= verbs(each, (*before, name))
    return found


def test_the_walk_knows_every_verb(
    servers: tuple[ScriptedServer, ScriptedServer],
    home_of_walk: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert set(walk(servers, home_of_walk, capfd).commands()) == verbs(create_parser())


@pytest.mark.slow
@pytest.mark.parametrize("status", [400, 401, 404, 416, *([403, 405, 500] if FULL else [])])
def test_no_verb_shows_what_a_registry_repeats(
    servers: tuple[ScriptedServer, ScriptedServer],
    home_of_walk: Path,
    capfd: pytest.CaptureFixture[str],
    status: int,
) -> None:
    walked = walk(servers, home_of_walk, capfd)
    echo = walked._echo
    servers[0].respond("*", "(?!/token).*", lambda seen: echo.refuse(seen, status))

    walked.all()

    assert_clean(walked, echo)
    assert "<hidden>" in walked.shown
    assert walked.codes["blob push"] != 0


@pytest.mark.slow
@pytest.mark.parametrize("status", [400, 401, *([403, 500] if FULL else [])])  # 500 is repeated
def test_no_verb_shows_what_a_token_service_repeats(
    servers: tuple[ScriptedServer, ScriptedServer],
    home_of_walk: Path,
    capfd: pytest.CaptureFixture[str],
    status: int,
) -> None:
    walked = walk(servers, home_of_walk, capfd)
    echo = walked._echo
    for method in ("GET", "POST"):
        servers[0].respond(method, "/token.*", lambda seen: _without_token(echo, seen, status))

    walked.all()

    assert_clean(walked, echo)
    assert "<hidden>" in walked.shown


def _without_token(echo: Echo, seen: ReceivedRequest, status: int) -> ScriptedResponse:
    """A token service that gives none."""
    echo.listen(seen)
    return echo.refuse(seen, status)


@pytest.mark.slow
@pytest.mark.parametrize(("session", "trouble"), SESSIONS_AND_TROUBLES)
def test_no_verb_shows_a_session_or_a_signed_url(
    servers: tuple[ScriptedServer, ScriptedServer],
    home_of_walk: Path,
    capfd: pytest.CaptureFixture[str],
    session: str,
    trouble: ScriptedResponse | None,
) -> None:
    walked = walk(servers, home_of_walk, capfd, session)
    walked._echo.serve_until_the_blobs(trouble)

    # The other verbs do not see where a session stands.
    walked.all(None if FULL or session == SESSIONS[0] else SENDING)

    assert_clean(walked, walked._echo)
    assert "<session>" in walked.shown
    assert walked.codes[f"tags http://{servers[0].host}/app"] == 0


def test_a_journal_that_knows_a_session_shows_none(
    servers: tuple[ScriptedServer, ScriptedServer],
    home_of_walk: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    walked = walk(servers, home_of_walk, capfd, SESSIONS[2])
    echo = walked._echo
    echo.serve_until_the_blobs()

    def accept(seen: ReceivedRequest) -> ScriptedResponse:
        return reply(202, Location=echo.location, Range=f"0-{len(seen.read()) - 1}")

    servers[0].respond("PATCH", ".*", accept, lambda seen: echo.refuse(seen, 403))
    (home_of_walk / "large").write_bytes(os.urandom(24 << 20))
    push = ["blob", "push", str(home_of_walk / "large"), f"http://{servers[0].host}/app"]

    access = f"--authfile={home_of_walk / 'by-password.json'}"
    walked.run(push, access)
    assert "large" in _listing(walked)
    walked.run(["transfers", "forget", "--all"])

    assert_clean(walked, echo)


def _listing(walked: Walk) -> str:
    before = len(walked.shown)
    walked.run(["transfers"])
    return walked.shown[before:]


@pytest.mark.process
def test_serve_shows_neither_passwords_nor_sessions(
    servers: tuple[ScriptedServer, ScriptedServer],
    home_of_walk: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    walked = walk(servers, home_of_walk, capfd)

    session = walked.serve()

    assert "PATCH /v2/app/blobs/uploads/<session>" in walked.shown
    assert len(session) > 8
    assert session not in walked.shown
    assert_clean(walked, walked._echo)


@pytest.mark.process
def test_the_demo_shows_no_session(
    servers: tuple[ScriptedServer, ScriptedServer],
    home_of_walk: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_demo_small(monkeypatch)
    walked = walk(servers, home_of_walk, capfd)

    assert walked.run(["demo"]) == 0

    sessions = re.findall(r"/blobs/uploads/([^\s?:;,]+)", walked.shown)
    assert set(sessions) == {"<session>"}
