"""A hostile registry with listeners all around it, and what none of them may see."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from pathlib import Path

from concil.auth.credentials.credentials import Credentials
from concil.config import RetryPolicy, Timeouts, TransferConfig
from concil.engine.engine import Engine
from concil.engine.image_resolver import Endpoints
from concil.engine.store_factory import EndpointOptions
from concil.errors import ConcilError
from concil.oci.media_types import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from concil.transfer.journal import Journal
from tests.support.images import digest_of
from tests.support.scripted_server import ReceivedRequest, ScriptedResponse, ScriptedServer, reply

USER, PASSWORD, TOKEN = "alice", "pa55-of-alice", "t0ken-of-alice"
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
COOKIE = "sess10n-cookie"
ALICE = Credentials(USER, PASSWORD)
SECRETS = (PASSWORD, TOKEN, BASIC, COOKIE)
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
BLOB = b"the bytes of a layer"


class HostileRegistry:
    """A registry that gives a token, hands out what a test tells it to, and two bystanders.

    ``bystander`` is another origin on the same host; ``storage`` is one, too, and is meant
    to be: what a registry may redirect to.
    """

    def __init__(
        self, registry: ScriptedServer, bystander: ScriptedServer, storage: ScriptedServer
    ) -> None:
        self.registry, self.bystander, self.storage = registry, bystander, storage
        self.allowed: set[tuple[str, str]] = set()
        self.served: dict[
            str, ScriptedResponse | Callable[[ReceivedRequest], ScriptedResponse]
        ] = {}  # by path
        registry.respond("GET", r"/token.*", reply(200, json.dumps({"token": TOKEN})))
        registry.respond("*", r"/v2/.*", self._answer)

    def _answer(self, seen: ReceivedRequest) -> ScriptedResponse:
        challenge = f'Bearer realm="{self.registry.url}/token",service="s"'
        if seen.headers.get("authorization") != f"Bearer {TOKEN}":
            return ScriptedResponse(
                401,
                b"",
                (
                    ("WWW-Authenticate", challenge),
                    ("Set-Cookie", f"sid={COOKIE}; Path=/"),
                    ("Set-Cookie", f"all={COOKIE}; Domain=127.0.0.1"),
                ),
            )
        path = seen.path.partition("?")[0]
        action = self.served.get(
            f"{seen.method} {path}", self.served.get(path, ScriptedResponse(404))
        )
        return action(seen) if callable(action) else action

    def allow(self, name: str, header: str) -> None:
        """Let somebody see a header: a proxy sees its password."""
        self.allowed.add((name, header))

    def serve(
        self, rest: str, answer: ScriptedResponse | Callable[[ReceivedRequest], ScriptedResponse]
    ) -> None:
        """Answer what is asked of something in the repository; "GET rest" for one method."""
        method, _, place = rest.rpartition(" ")
        self.served[f"{method} /v2/app/{place}".strip()] = answer

    def serve_manifest(
        self, document: object, media_type: str = OCI_MANIFEST, reference: str = "v1"
    ) -> str:
        """Serve a manifest under a tag; return its digest."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        digest = digest_of(body)
        for name in (reference, digest):
            self.serve(f"manifests/{name}", reply(200, body, Content_Type=media_type))
        return digest

    def serve_blob(self, content: bytes, digest: str = "", **headers: str) -> str:
        """Serve a blob; return its digest."""
        digest = digest or digest_of(content)
        self.serve(f"blobs/{digest}", reply(200, content, **headers))
        return digest

    def assert_no_secret_leaked(self) -> None:
        """Assert that only the registry itself has seen a secret, and nobody a cookie."""
        for name, server in (("bystander", self.bystander), ("storage", self.storage)):
            for seen in server.requests:
                everything = f"{seen.path} {seen.headers} {seen.body!r}"
                for secret in SECRETS:
                    assert secret not in everything, f"{name} saw {secret}: {seen}"
                for header in ("authorization", "cookie", "proxy-authorization"):
                    if (name, header) not in self.allowed:
                        assert header not in seen.headers, f"{name}: {header} of {seen}"
        for seen in self.registry.requests:
            assert "cookie" not in seen.headers


def descriptor(content: bytes, media_type: str = LAYER, **fields: object) -> dict[str, object]:
    return {
        "mediaType": media_type,
        "digest": digest_of(content),
        "size": len(content),
        **fields,
    }


def image(**fields: object) -> dict[str, object]:
    """A manifest of one layer, `BLOB`, and an empty config."""
    return {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(b"{}", OCI_CONFIG),
        "layers": [descriptor(BLOB)],
        **fields,
    }


def index(*entries: object, **fields: object) -> dict[str, object]:
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(entries), **fields}


def engine(workers: int, credentials: Credentials | None = ALICE) -> Engine:
    """An engine that does not wait long; Alice's, or nobody's."""
    config = TransferConfig(
        workers=workers, retry=RetryPolicy(max_attempts=2, backoff_base=0, max_backoff=0)
    )
    access = EndpointOptions(credentials=credentials)
    return Engine(
        config,
        endpoints=Endpoints(access, access),
        timeouts=Timeouts(connect=5, idle=5, commit=5),
        journal=Journal(None),
    )


def failure(work: Callable[[], object], limit: float = 30) -> ConcilError:
    """Run what must fail, by an error of ours and within a time; return the error."""
    found: list[BaseException | None] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - looked at below
            found.append(error)
        else:
            found.append(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit)
    assert found, f"still at it after {limit} s"
    [error] = found
    assert isinstance(error, ConcilError), repr(error)
    text = str(error)
    assert text.isprintable(), ascii(text)
    assert len(text) < 2000
    for secret in SECRETS:
        assert secret not in text + error.remedy
    return error


def all_paths(place: Path) -> set[Path]:
    """Every file and directory below a place."""
    return {path.relative_to(place) for path in place.rglob("*")}
