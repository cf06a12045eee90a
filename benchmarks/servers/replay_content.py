"""What the registry of canned answers has, and what it answers."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from benchmarks.content import MANIFEST
from benchmarks.servers.replay_parser import Request

_IN_MEMORY = 4 * 1024 * 1024  # bytes of a blob that is answered without sendfile
_RANGE = re.compile(rb"\r\nrange: *bytes=(\d+)-(\d*)", re.IGNORECASE)
_REASONS = {200: "OK", 201: "Created", 202: "Accepted", 204: "No Content", 206: "Partial Content"}


@dataclass(frozen=True, slots=True)
class Answer:
    """The bytes to send, and the part of a file behind them."""

    head: bytes
    file: int | None = None  # descriptor
    start: int = 0
    stop: int = 0


def response(status: int, body: bytes = b"", **headers: str) -> bytes:
    """Build an answer with a body."""
    return _build(status, headers, len(body)) + body


def _build(status: int, headers: Mapping[str, str], length: int) -> bytes:
    """Build the head of an answer with a body of so many bytes."""
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Not Found')}", f"Content-Length: {length}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


_MISSING = response(404, b'{"errors":[{"code":"UNKNOWN"}]}', Content_Type="application/json")
_MISSING_HEAD = _MISSING[: -len(b'{"errors":[{"code":"UNKNOWN"}]}')]


class Content:
    """The content of a source, and what was pushed since the last reset.

    Args:
        directory: `blobs/HEX` and `tags.json`; None: nothing.
    """

    def __init__(self, directory: Path | None) -> None:
        self._blobs: dict[str, tuple[int, int]] = {}  # digest: descriptor, bytes
        self._whole: dict[str, bytes] = {}  # the answer with a small blob, by digest
        self._tags: dict[str, list[str]] = {}  # of the source, by repository
        self._canned: dict[tuple[str, str], bytes] = {}  # method and target: answer
        self._pushed: dict[tuple[str, str], bytes] = {}  # likewise
        self._sessions: dict[str, int] = {}  # path: bytes received
        self._sizes: dict[str, int] = {}  # of the blobs that were pushed
        self._opened = 0  # sessions
        self.url = ""  # of the server; curl wants whole addresses
        self.count = 0  # requests
        for target in ("/v2/", "/v2"):
            self._canned["GET", target] = response(200, b"{}", Content_Type="application/json")
        if directory:
            self._load(directory)

    def answer(self, request: Request) -> Answer:
        """Answer one request."""
        if request.target == "/count":
            return Answer(response(200, str(self.count).encode()))
        if (request.method, request.target) == ("DELETE", "/"):
            self._reset()
            return Answer(response(200))
        self.count += 1
        key = request.method, request.target
        canned = self._canned.get(key) or self._pushed.get(key)
        return Answer(canned) if canned else self._find(request)

    def _find(self, request: Request) -> Answer:
        """Answer what is not in memory."""
        path, _, query = request.target.partition("?")
        if "/blobs/uploads/" in path:
            return Answer(self._upload(request, path, unquote(query)))
        if "/blobs/" in path:
            return self._blob(request, path.rpartition("/")[2])
        if "/manifests/" in path and request.method == "PUT":
            return Answer(self._put_manifest(request, path))
        if path.endswith("/tags/list"):
            return Answer(self._list(path))
        return Answer(_MISSING_HEAD if request.method == "HEAD" else _MISSING)

    def _load(self, directory: Path) -> None:
        for path in (directory / "blobs").iterdir():
            file, size = os.open(path, os.O_RDONLY), path.stat().st_size
            self._blobs[f"sha256:{path.name}"] = (file, size)
        for name, digest in json.loads((directory / "tags.json").read_text()).items():
            repository, _, tag = name.rpartition(":")
            self._tags.setdefault(repository, []).append(tag)
            body = (directory / "blobs" / digest.partition(":")[2]).read_bytes()
            self._add_manifest(self._canned, repository, (tag, digest), body)

    def _reset(self) -> None:
        self._pushed.clear()
        self._sessions.clear()
        self.count = 0

    @staticmethod
    def _add_manifest(
        answers: dict[tuple[str, str], bytes],
        repository: str,
        references: tuple[str, str],
        body: bytes,
    ) -> None:
        digest = references[1]
        whole = response(200, body, Content_Type=MANIFEST, Docker_Content_Digest=digest)
        for reference in references:
            target = f"/v2/{repository}/manifests/{reference}"
            answers["GET", target] = whole
            answers["HEAD", target] = whole[: len(whole) - len(body)]

    def _blob(self, request: Request, digest: str) -> Answer:
        """Send a blob, or a range of it."""
        if digest not in self._blobs or request.method not in ("GET", "HEAD"):
            return Answer(_MISSING_HEAD if request.method == "HEAD" else _MISSING)
        wanted = _RANGE.search(request.head)
        if digest in self._whole and not wanted and request.method == "GET":
            return Answer(self._whole[digest])
        file, size = self._blobs[digest]
        start, stop = 0, size
        headers = {"Docker_Content_Digest": digest}
        if wanted:
            start = int(wanted[1])
            stop = min(int(wanted[2]) + 1, size) if wanted[2] else size
            headers["Content_Range"] = f"bytes {start}-{stop - 1}/{size}"
        head = _build(206 if wanted else 200, headers, stop - start)
        if request.method == "HEAD":
            return Answer(head)
        if size > _IN_MEMORY:
            return Answer(head, file, start, stop)
        whole = head + os.pread(file, stop - start, start)
        if not wanted:
            self._whole[digest] = whole
        return Answer(whole)

    def _upload(self, request: Request, path: str, query: str) -> bytes:
        """Open a session, take bytes, commit, mount."""
        repository = path.removeprefix("/v2/").partition("/blobs/")[0]
        if request.method == "POST":
            fields = dict(field.split("=", 1) for field in query.split("&") if "=" in field)
            source, digest = fields.get("from", ""), fields.get("mount", "")
            if ("HEAD", f"/v2/{source}/blobs/{digest}") in self._pushed:
                return self._commit(repository, digest)
            self._opened += 1
            path = f"{path}{self._opened}"
            self._sessions[path] = 0
            return response(202, Location=f"{self.url}{path}", Range="0-0")
        if path not in self._sessions:
            return _MISSING
        self._sessions[path] += request.size
        size = self._sessions[path]
        if request.method == "PUT":
            digest = query.partition("digest=")[2].partition("&")[0]
            self._sizes[digest] = self._sessions.pop(path)
            return self._commit(repository, digest)
        status = 202 if request.method == "PATCH" else 204
        return response(status, Location=f"{self.url}{path}", Range=f"0-{max(size - 1, 0)}")

    def _commit(self, repository: str, digest: str) -> bytes:
        target = f"/v2/{repository}/blobs/{digest}"
        headers = {"Docker_Content_Digest": digest}
        self._pushed["HEAD", target] = _build(200, headers, self._sizes[digest])
        return response(201, Location=f"{self.url}{target}", Docker_Content_Digest=digest)

    def _put_manifest(self, request: Request, path: str) -> bytes:
        repository, _, reference = path.removeprefix("/v2/").partition("/manifests/")
        digest = f"sha256:{hashlib.sha256(request.body).hexdigest()}"
        self._add_manifest(self._pushed, repository, (reference, digest), request.body)
        return response(201, Location=f"{self.url}{path}", Docker_Content_Digest=digest)

    def _list(self, path: str) -> bytes:
        repository = path.removeprefix("/v2/").removesuffix("/tags/list")
        if repository not in self._tags:
            return _MISSING
        body = json.dumps({"name": repository, "tags": self._tags[repository]}).encode()
        return response(200, body, Content_Type="application/json")
