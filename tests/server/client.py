"""A plain HTTP client for one repository, without any of concil's own."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urljoin

import requests

from tests.support.images import OCI, digest_of

TIMEOUT = 30  # seconds
OCTETS = {"Content-Type": "application/octet-stream"}
EMPTY_CONFIG = b"{}"


class Client:
    """Asks one registry about one repository; close it after use."""

    def __init__(self, url: str, repository: str = "team/app") -> None:
        self.url = url
        self.repository = repository
        self._session = requests.Session()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._session.close()

    def at(self, repository: str) -> Client:
        """The same registry and connection, another repository."""
        other = Client(self.url, repository)
        other._session.close()
        other._session = self._session
        return other

    def ask(self, method: str, path: str, **options: Any) -> requests.Response:  # noqa: ANN401
        """Ask for a path below the repository, or for an absolute one."""
        target = path if path.startswith("/") else f"/v2/{self.repository}/{path}"
        return self._session.request(method, urljoin(self.url, target), timeout=TIMEOUT, **options)

    def post(self, **query: str) -> requests.Response:
        """Open an upload session."""
        return self.ask("POST", "blobs/uploads/", params=query, headers={"Content-Length": "0"})

    def begin(self) -> str:
        """Open an upload session; return its Location."""
        answer = self.post()
        assert answer.status_code == 202, answer.text
        return answer.headers["Location"]

    def patch(self, location: str, piece: bytes, start: int | None = None) -> requests.Response:
        """Send a chunk, or a stream where no start is given."""
        headers = dict(OCTETS)
        if start is not None:
            headers["Content-Range"] = f"{start}-{start + len(piece) - 1}"
        return self.ask("PATCH", location, data=piece, headers=headers)

    def put(self, location: str, digest: str, piece: bytes = b"") -> requests.Response:
        """Close a session."""
        return self.ask("PUT", location, params={"digest": digest}, data=piece, headers=OCTETS)

    def push(self, blob: bytes) -> str:
        """Upload a blob; return its digest."""
        digest = digest_of(blob)
        answer = self.put(self.begin(), digest, blob)
        assert answer.status_code == 201, answer.text
        return digest

    def push_manifest(
        self, reference: str, body: bytes, media_type: str = OCI.manifest, **query: str | list[str]
    ) -> requests.Response:
        """Upload a manifest."""
        headers = {"Content-Type": media_type}
        path = f"manifests/{reference}"
        return self.ask("PUT", path, data=body, headers=headers, params=query)

    def push_image(
        self, tag: str, note: str = "", fields: Mapping[str, object] | None = None
    ) -> tuple[str, bytes]:
        """Upload an image without layers; return its digest and manifest."""
        self.push(EMPTY_CONFIG)
        body = manifest(note, **(fields or {}))
        answer = self.push_manifest(tag, body)
        assert answer.status_code == 201, answer.text
        return digest_of(body), body

    def tags(self, **query: str) -> list[str]:
        """List the tags."""
        answer = self.ask("GET", "tags/list", params=query)
        assert answer.status_code == 200, answer.text
        return [str(tag) for tag in answer.json()["tags"]]


def descriptor(content: bytes, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


def manifest(note: str = "", **fields: object) -> bytes:
    """The bytes of a manifest with an empty config and no layers unless they are given."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI.manifest,
        "config": descriptor(EMPTY_CONFIG, OCI.config),
        "layers": [],
        "annotations": {"note": note},
        **fields,
    }
    return json.dumps(document).encode()


def index(*entries: dict[str, object], **fields: object) -> bytes:
    document = {"schemaVersion": 2, "mediaType": OCI.index, "manifests": entries, **fields}
    return json.dumps(document).encode()


def code_of(answer: requests.Response) -> str:
    """The error code of an answer in the specification's form."""
    assert answer.headers["Content-Type"] == "application/json"
    errors = answer.json()["errors"]
    assert all(set(error) >= {"code", "message"} for error in errors)
    return str(errors[0]["code"])


@dataclass(frozen=True, slots=True)
class Raw:
    """An answer that was read from a bare socket."""

    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes


class RawClient:
    """A bare connection, for what no HTTP library would send."""

    def __init__(self, host: str) -> None:
        name, _, port = host.rpartition(":")
        self.sock = socket.create_connection((name, int(port)), timeout=TIMEOUT)
        self._file = self.sock.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self.sock.close()

    def send(self, text: str, body: bytes = b"") -> None:
        """Send a head, whose lines end in plain newlines here, and some of a body."""
        self.sock.sendall(text.replace("\n", "\r\n").encode("latin-1") + body)

    def answer(self, *, head: bool = False) -> Raw:
        """Read one answer."""
        status = int(self._file.readline().split()[1])
        headers = dict(self._headers())
        length = 0 if head or status < 200 else int(headers.get("content-length", "0"))
        return Raw(status, headers, self._file.read(length))

    def closed(self) -> bool:
        """Whether the server closes without another byte."""
        try:
            return self._file.read(1) == b""
        except ConnectionResetError:
            return True

    def _headers(self) -> Iterator[tuple[str, str]]:
        while line := self._file.readline().strip().decode("latin-1"):
            name, _, value = line.partition(":")
            yield name.lower(), value.strip()
