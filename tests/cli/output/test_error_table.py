"""docs/errors.md: each row is provoked, and its message and exit code are those of the table."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from concil.server import EmbeddedRegistry, ErrorResponse, RegistryBehavior, Request, Response
from tests.cli.runner import Cli, Outcome
from tests.support.images import make_image, put_image, write_layout
from tests.support.referrers import digest_tag
from tests.support.signatures import make_key, make_simple_signature, write_public_key
from tests.support.sigstore_instance import IDENTITY, ISSUER, SigstoreInstance
from tests.support.tls import CertificateAuthority

PAGE = Path(__file__).parent.parent.parent.parent / "docs" / "errors.md"
ROW = re.compile(
    r"^\| (?P<cause>[^|`]+) \| `(?P<message>[^`]+)` \| (?P<code>\d+) \|$", re.MULTILINE
)
PLACEHOLDERS = {
    "HOST": r"127\.0\.0\.1:\d+",
    "FILE": r"\S+",
    "DIR": r"[^']+",
    "DIGEST": "sha256:[0-9a-f]{64}",
    r"\.\.\.": ".*",
}
IMAGE = make_image(1)
WEBSITE = "<!DOCTYPE html><title>Welcome</title>"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table."""

    message: str
    code: int

    @property
    def pattern(self) -> str:
        """The message as a regular expression."""
        text = re.escape(self.message)
        for placeholder, pattern in PLACEHOLDERS.items():
            text = text.replace(placeholder, pattern)
        return text


def rows() -> dict[str, Row]:
    return {
        found["cause"]: Row(found["message"], int(found["code"]))
        for found in ROW.finditer(PAGE.read_text())
    }


class Troubled(RegistryBehavior):
    """A registry that answers as ``trouble`` says, once it is set."""

    def __init__(self) -> None:
        self.trouble: Callable[[Request], Response | None] | None = None

    def before_request(self, request: Request) -> Response | None:
        return None if self.trouble is None else self.trouble(request)


class Provoker:
    """What the causes need: the command line, a registry with an image, and files."""

    def __init__(  # noqa: PLR0917 - fixtures
        self,
        cli: Cli,
        registry: EmbeddedRegistry,
        behavior: Troubled,
        directory: Path,
        monkeypatch: pytest.MonkeyPatch,
        ca: CertificateAuthority,
    ) -> None:
        self.cli = cli
        self.registry = registry
        self.behavior = behavior
        self.directory = directory
        self.monkeypatch = monkeypatch
        self.ca = ca
        self.host = registry.host
        self.image = f"{registry.host}/app:v1"

    def file(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.write_text(text)
        return path


@pytest.fixture
def provoker(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ca: CertificateAuthority
) -> Iterator[Provoker]:
    behavior = Troubled()
    with EmbeddedRegistry(tmp_path / "served", behavior=behavior) as registry:
        put_image(registry.url, "app", "v1", IMAGE)
        yield Provoker(cli, registry, behavior, tmp_path, monkeypatch, ca)


def refuse(code: str, message: str, status: int) -> Callable[[Request], Response | None]:
    def answer(request: Request) -> Response | None:
        challenge = {"WWW-Authenticate": 'Basic realm="r"'} if status == 401 else {}
        raise ErrorResponse(code, message, status=status, headers=challenge)

    return answer


def refuse_writes(request: Request) -> Response | None:
    if request.method in {"GET", "HEAD"}:
        return None
    raise ErrorResponse("DENIED", "read only", status=403)


def website(status: int) -> Callable[[Request], Response | None]:
    return lambda _: Response(status, {"Content-Type": "text/html"}, WEBSITE.encode())


def spoil_blobs(request: Request) -> Response | None:
    if request.method == "GET" and "/blobs/" in request.path:
        size = {str(layer): len(content) for layer, content in IMAGE.blobs.items()}
        return Response(200, {}, b"x" * size[request.path.rpartition("/")[2]])
    return None


def in_trouble(
    trouble: Callable[[Request], Response | None], *words: str
) -> Callable[[Provoker], Outcome]:
    """Return what runs a command while the registry is in trouble."""

    def provoke(p: Provoker) -> Outcome:
        p.behavior.trouble = trouble
        return p.cli(*(word.format(host=p.host, dir=p.directory) for word in words))

    return provoke


def simply(*words: str) -> Callable[[Provoker], Outcome]:
    """Return what runs a command."""
    return lambda p: p.cli(*(word.format(host=p.host, dir=p.directory) for word in words))


def unknown_host(p: Provoker) -> Outcome:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    p.monkeypatch.setattr(socket, "getaddrinfo", fail)
    return p.cli("digest", "wrong.example/app:v1")


def untrusted(p: Provoker) -> Outcome:
    context = p.ca.issue("127.0.0.1").server_context()
    with EmbeddedRegistry(p.directory / "tls", ssl_context=context) as registry:
        return p.cli("digest", f"{registry.host}/app:v1")


def missing_name(p: Provoker) -> Outcome:
    write_layout(p.directory / "layout", {"app:v1": IMAGE})
    return p.cli("digest", f"oci:{p.directory}/layout:none")


def wrong_field(p: Provoker) -> Outcome:
    plan = p.file("plan.toml", '[[mirror]]\nsource = "a.example/x"\nplattforms = []\n')
    return p.cli("mirror", plan, "b.example/y")


def wrong_key(p: Provoker) -> Outcome:
    p.monkeypatch.setenv("CONCIL_CONFIG", str(p.file("config.toml", "retry = 1\njobz = 3\n")))
    return p.cli("digest", "a.example/x:1")


def wrong_variable(p: Provoker) -> Outcome:
    p.monkeypatch.setenv("CONCIL_JOBS", "many")
    return p.cli("digest", "a.example/x:1")


def equal_targets(p: Provoker) -> Outcome:
    images = p.file("list", "a.example/x:1 -> z:1\na.example/y:1 -> z:1\n")
    return p.cli("mirror", images, "b.example/y")


def unsigned(p: Provoker) -> Outcome:
    key = write_public_key(p.directory / "cosign.pub", make_key())
    return p.cli("copy", "-q", p.image, f"oci:{p.directory}/copy:v1", "--verify-key", key)


def signed_by_another(p: Provoker) -> Outcome:
    signature = make_simple_signature(make_key(), IMAGE)
    put_image(p.registry.url, "app", digest_tag(IMAGE, ".sig"), signature)
    return unsigned(p)


def private_key(p: Provoker) -> Outcome:
    key = p.file("cosign.key", "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n")
    return p.cli("copy", "a.example/x:1", "b.example/y:1", "--verify-key", key)


def old_trust_root(p: Provoker) -> Outcome:
    pytest.importorskip("sigstore")
    document = json.loads(SigstoreInstance().trust_root())
    document["certificateAuthorities"][0]["validFor"]["end"] = "2001-01-01T00:00:00Z"
    trust_root = p.file("trusted_root.json", json.dumps(document))
    identity = ("--verify-identity", IDENTITY, "--verify-issuer", ISSUER)
    return p.cli("copy", "a.example/x:1", "b.example/y:1", *identity, "--trust-root", trust_root)


def dead_sources(p: Provoker) -> Outcome:
    names = (f"http://{p.image}", "http://127.0.0.1:1/a:v1", "http://127.0.0.1:1/b:v1")
    return p.cli("mirror", "--retry=0", p.file("list", "\n".join(names)), f"http://{p.host}/m")


PROVOKE: dict[str, Callable[[Provoker], Outcome]] = {
    "misspelt verb": simply("cpoy", "a", "b"),
    "misspelt option": simply("copy", "--plaform=linux/amd64", "a", "b"),
    "missing argument": simply("copy", "a"),
    "option without its value": simply("copy", "a", "b", "--jobs"),
    "host without a repository": simply("tags", "localhost:5000"),
    "image in Docker's own store": simply("copy", "docker-daemon:app:v1", "a"),
    "directory of skopeo": simply("copy", "a", "dir:x"),
    "architecture in place of a platform": simply("digest", "--platform=amd64", "a"),
    "misspelt field of a plan": wrong_field,
    "misspelt key of the config file": wrong_key,
    "wrong value of a variable": wrong_variable,
    "two lines with one target": equal_targets,
    "tag does not exist": simply("manifest", "{host}/app:none"),
    "repository does not exist": simply("tags", "{host}/none"),
    "image is for another platform": simply("digest", "--platform=linux/arm64", "{host}/app:v1"),
    "layout does not exist": simply("tags", "oci:{dir}/none"),
    "name is not in a layout": missing_name,
    "nothing listens": simply("digest", "http://127.0.0.1:1/app:v1"),
    "host name is unknown": unknown_host,
    "certificate is not trusted": untrusted,
    "not logged in": in_trouble(
        refuse("UNAUTHORIZED", "log in first", 401), "manifest", "{host}/app:v1"
    ),
    "rights are missing": in_trouble(refuse_writes, "blob", "push", str(PAGE), "{host}/app"),
    "address of a website": in_trouble(website(404), "manifest", "{host}/app:v1"),
    "website that answers everything": in_trouble(website(200), "manifest", "{host}/app:v1"),
    "registry fails": in_trouble(
        refuse("UNAVAILABLE", "try later", 503), "manifest", "--retry=0", "{host}/app:v1"
    ),
    "deletion is disabled": in_trouble(
        lambda request: (
            refuse("UNSUPPORTED", "deletion is disabled", 405)(request)
            if request.method == "DELETE"
            else None
        ),
        "delete",
        f"{{host}}/app@{IMAGE.digest}",
    ),
    "blob has other bytes": in_trouble(
        spoil_blobs, "copy", "-q", "{host}/app:v1", "oci:{dir}/copy:v1"
    ),
    "image is not signed": unsigned,
    "image is signed by somebody else": signed_by_another,
    "private key in place of the public one": private_key,
    "old trust root": old_trust_root,
    "some images of a mirror": dead_sources,
}


def test_the_table_has_each_cause_once() -> None:
    assert sorted(rows()) == sorted(PROVOKE)
    assert len(rows()) == PAGE.read_text().count("\n| ") - 1  # without the heading


@pytest.mark.parametrize("cause", PROVOKE)
def test_the_message_and_exit_code_are_those_of_the_table(cause: str, provoker: Provoker) -> None:
    row = rows()[cause]

    outcome = PROVOKE[cause](provoker)

    assert outcome.messages.startswith("concil: ")
    assert outcome.messages.count("\n") == 1, outcome.messages
    message = outcome.messages.removeprefix("concil: ").removesuffix("\n")
    assert re.fullmatch(row.pattern, message), f"{message!r} is not {row.message!r}"
    assert outcome.code == row.code
