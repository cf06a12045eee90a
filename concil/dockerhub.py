"""The documented client of one repository; everything it documents is imported from here."""

from __future__ import annotations

import os
import urllib.parse
from typing import Any, NoReturn, Self

import requests

from concil import arguments
from concil.cancellation import SupportsIsSet, calling
from concil.config import RetryPolicy, Timeouts, TransferConfig
from concil.content import DOCKER_MANIFEST, DOCKER_SCHEMA1, Digest
from concil.docker_path import BlobOpener, DockerPath, ResponseStream
from concil.docker_request import (
    ANYTHING,
    accepted,
    accepting_manifests,
    checked,
    load,
    manifest_name,
    settled,
)
from concil.docker_upload import Upload, Uploads, bytes_upload, file_upload
from concil.docker_url import DockerSplitResult, parse_docker_url
from concil.forking import renew_in_child
from concil.layer import LayerArchive
from concil.progress import ProgressSink
from concil.reference import check_repository, check_tag, is_loopback
from concil.registry.client import RegistryClient
from concil.registry.connections import forget_foreign_connections
from concil.registry.credentials import Credentials, Login, Prompt
from concil.registry.endpoint import Call, Endpoint
from concil.registry.http_session import TLSSettings, new_session
from concil.registry.keyring import Keyring, Shelf
from concil.registry.scopes import Scopes
from concil.registry.session import Transport, discard
from concil.store.protocol import BlobReader
from concil.store.remote import RemoteBlob
from concil.transfer.run import Run
from concil.verified import VerifiedResponse, verified_response

__all__ = [
    "BlobOpener",
    "DockerHub",
    "DockerPath",
    "DockerSplitResult",
    "LayerArchive",
    "ResponseStream",
    "VerifiedResponse",
    "parse_docker_url",
]


class DockerHub:
    """One repository of a registry.

    Any thread may call any method. ``session`` does the work: what is set on it
    (verify, cert, proxies, headers, adapters) takes effect. ``username`` and
    ``password`` may be set at any time. A forked child makes its own connections and tokens.
    """

    def __init__(
        self,
        docker_url: str,
        verify: bool | str | os.PathLike[str] | None = None,  # noqa: FBT001 - documented as positional
        *,
        timeout: float | tuple[float | None, float | None] | Timeouts | None = None,
        retry: int | RetryPolicy | None = None,
    ) -> None:
        """Parse the URL; nothing is asked yet.

        Args:
            docker_url: ``docker://[user:password@]host[:port]/repository[:tag|@digest]``;
                ``http://`` for plain http.
            verify: a CA file or directory, or False to trust anybody.
            timeout: seconds without a byte, in either direction, default 60; or a pair as
                requests has it, (connect, read).
            retry: how often in a row without progress anything is tried, default 6; 1: once.
        Raises:
            InvalidReference: not such a URL.
            TypeError: an argument of another type; it is named.
        """
        parts = parse_docker_url(docker_url)
        unquote = urllib.parse.unquote_plus
        self.username = None if parts.username is None else unquote(parts.username)
        self.password = None if parts.password is None else unquote(parts.password)
        self.repository = check_repository(parts.repository) if parts.repository else ""
        self.tag = parts.tag
        self._timeouts = Timeouts.argument("timeout", timeout)
        self._policy = RetryPolicy.argument("retry", retry)
        session = new_session(TLSSettings(arguments.trust(verify)))
        session.headers["Docker-Distribution-Api-Version"] = "registry/2.0"
        self._plain = parts.scheme in ("docker", "store")
        self._begin(session, parts.url)
        renew_in_child(self, DockerHub._after_fork)

    def _begin(self, session: requests.Session, url: str) -> None:
        """Make what the requests share; nothing is asked."""
        self._run = Run(TransferConfig(retry=self._policy))
        self._transport = Transport(session, timeouts=self._timeouts, cancel=self._run.cancel)
        self._keyring = Keyring(Shelf.of(None), cancel=self._run.cancel)
        self._uploads = Uploads(self._run)
        self.url = url

    def _after_fork(self) -> None:
        """Begin anew in a forked child: connections, tokens and locks are the parent's."""
        forget_foreign_connections(self.session)
        self._begin(self.session, self.url)

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled: connections do not travel."""
        raise TypeError(
            "a DockerHub cannot be pickled: make one of its URL in the process that uses it"
        )

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_raised: object) -> None:
        """Close the session's connections."""
        self.close()

    @property
    def session(self) -> requests.Session:
        """The session that sends every request."""
        return self._transport.session

    @session.setter
    def session(self, session: requests.Session) -> None:
        self._transport.session = session

    @property
    def url(self) -> str:
        """The URL of the repository in the registry's API; http once that is what it speaks."""
        return self._endpoint.base + self._path

    @url.setter
    def url(self, url: str) -> None:
        parts = urllib.parse.urlsplit(arguments.text("url", url))
        base = f"{parts.scheme}://{parts.netloc}"
        self._path = parts.path
        place = parts.netloc + parts.path.removeprefix("/v2")
        self._endpoint = Endpoint(
            self._transport,
            base,
            login=Login(
                stored=lambda: self._keyring.find(place, self.username),
                ask=Prompt(parts.netloc, lambda: self.username, self._typed),
            ),
            may_be_plain=self._plain and is_loopback(parts.netloc),
        )
        repository = parts.path.removeprefix("/v2/")
        self._client = RegistryClient(self._endpoint, repository, policy=self._policy)

    def request(self, method: str, url: str, **kw: Any) -> requests.Response:  # noqa: ANN401
        """Send a request with the registry's credentials.

        Args:
            url: absolute; credentials go along only to the registry itself.
            kw: any keyword of ``requests.request``.
        Returns:
            The response; its body is unread with ``stream=True``.
        Raises:
            StatusError: a requests.HTTPError and RuntimeError; begins with the status code.
            ConnectionLost, TLSFailure: no answer.
        """
        arguments.text("method", method)
        stream = bool(kw.pop("stream", False))
        call = settled(method, arguments.text("url", url), self._scopes(method), kw)
        if self.session.headers.get("Accept", ANYTHING) == ANYTHING:
            call = accepting_manifests(call)
        response = checked(self._send(call))
        if not stream:
            load(response)
        return response

    def post_blob(
        self,
        filename: str | os.PathLike[str],
        *,
        progress: ProgressSink | None = None,
        cancel: SupportsIsSet | None = None,
    ) -> requests.Response:
        """Upload a file that is named by its digest: ``<hex>`` or ``sha256:<hex>``.

        Large files go in chunks and go on after a loss, also in another process.

        Args:
            cancel: a ``threading.Event`` that ends this upload when it is set.
        Returns:
            The response that committed the blob.
        Raises:
            InvalidDigest: the file's name is no digest.
            DigestMismatch: the file holds other bytes; nothing was committed.
        """
        with calling(cancel, minds_callbacks=False):
            return self._upload(file_upload(filename, self._run.cancel), progress)

    def post_blob_data(
        self,
        data: bytes,
        digest: str | Digest,
        *,
        progress: ProgressSink | None = None,
        cancel: SupportsIsSet | None = None,
    ) -> requests.Response:
        """Upload bytes under their digest, ``sha256:<hex>``.

        Args:
            cancel: a ``threading.Event`` that ends this upload when it is set.
        Returns:
            The response that committed the blob.
        Raises:
            DigestMismatch: the bytes are others; nothing was committed.
        """
        with calling(cancel, minds_callbacks=False):
            return self._upload(bytes_upload(data, digest), progress)

    def post_manifest(
        self,
        data: bytes,
        tag: str | Digest | None = None,
        content_type: str = DOCKER_MANIFEST,
    ) -> requests.Response:
        """Upload a manifest under ``tag``, by default the URL's; return the response."""
        body = bytes(arguments.content("data", data))
        name = str(tag) if isinstance(tag, Digest) else arguments.optional_text("tag", tag)
        name = self.tag if name is None else name
        reference = str(Digest.parse(name)) if ":" in name else check_tag(name)
        kind = arguments.text("content_type", content_type)
        return self._ready().put_manifest(body, kind, reference)

    def open_blob(
        self, digest: str | Digest, *, progress: ProgressSink | None = None
    ) -> VerifiedResponse:
        """Open a blob: a streaming response, verified while it is read, whichever way.

        After a drop it goes on by Range. Close it, or use it in a ``with``, whose end
        without an error reads and verifies up to 16 MiB that were not read.

        Raises:
            RegistryNotFound: there is no such blob.
        """
        blob = Digest.argument("digest", digest)

        def again(start: int, /) -> BlobReader:
            return RemoteBlob.at(self._ready().get_blob(blob, start), start)

        arguments.callback("progress", progress)
        first = self._ready().get_blob(blob, policy=self._policy)
        return verified_response(first, blob, again, progress, self._run)

    def open_layer(
        self, digest: str | Digest, *, progress: ProgressSink | None = None
    ) -> LayerArchive:
        """Open a layer as a `tarfile.TarFile` in stream mode; its end verifies all bytes.

        It may be compressed with gzip, bzip2, xz or, where Python can, zstd. Use it in a
        ``with``: closing it without an error reads the rest, however long.

        Raises:
            RegistryNotFound: there is no such blob.
            ContentError: it is not a tar archive.
        """
        response = self.open_blob(digest, progress=progress)
        return LayerArchive.over(response.raw, response.close)

    def has_blob(self, digest: str | Digest) -> bool:
        """Whether the repository has the blob; any error but 404 is raised."""
        return self._ready().head_blob(Digest.argument("digest", digest)) is not None

    def open_manifest(
        self,
        hash: str | Digest | None = None,  # noqa: A002 - documented
        accept: str | None = DOCKER_SCHEMA1,
    ) -> requests.Response:
        """Open the manifest of a tag or digest, by default the URL's: a streaming response.

        Args:
            hash: a tag, a digest, or the hex of a sha256.
            accept: the media types to ask for, separated by commas; None: any.
        """
        name = manifest_name(hash, self.tag)
        client = self._ready()
        headers = {"Accept": accepted(accept)}
        call = Call("GET", client.path(f"manifests/{name}"), client.pull, headers)

        def again(_start: int = 0, /) -> BlobReader:
            return RemoteBlob(client.endpoint.send(call), 0)

        response = client.endpoint.repeat(call, client.policy)
        if ":" not in name:
            return response
        return verified_response(response, Digest.parse(name), again, None, self._run)

    def get_manifest(
        self,
        hash: str | Digest | None = None,  # noqa: A002 - documented
        accept: str | None = DOCKER_SCHEMA1,
    ) -> bytes:
        """Return the bytes of a manifest; verified if it was asked for by digest.

        Raises:
            InvalidManifest: it is larger than 4 MiB.
            DigestMismatch: it is another one.
        """
        return self._ready().read_manifest(manifest_name(hash, self.tag), accepted(accept))[0]

    def close(self) -> None:
        """Close the session's connections; the hub can be used again."""
        self.session.close()

    def _send(self, call: Call) -> requests.Response:
        endpoint = self._ready().endpoint
        if call.body is not None and call.rewind is None and not isinstance(call.body, bytes):
            # A body that can be read only once must not meet a challenge.
            discard(endpoint.authorized(Call("GET", "/v2/", call.scopes)))
        return endpoint.authorized(call)

    def _scopes(self, method: str) -> Scopes:
        reading = method.upper() in ("GET", "HEAD", "OPTIONS")
        return self._client.pull if reading else self._client.push

    @property
    def _place(self) -> str:
        """The repository as the engine calls it: an upload is gone on with by either."""
        plain = "http://" if self._endpoint.base.startswith("http://") and not self._plain else ""
        return f"{plain}{self._endpoint.base.partition('://')[2]}/{self._client.repository}"

    def _ready(self) -> RegistryClient:
        """The client, with the user name and password as they are set now."""
        credentials = None
        if self.username and self.password is not None:
            credentials = Credentials(self.username, self.password)
        self._endpoint.auth.credentials = credentials
        return self._client

    def _typed(self, credentials: Credentials) -> None:
        """Keep what a person has typed."""
        self.username, self.password = credentials.username, credentials.password

    def _upload(self, upload: Upload, progress: ProgressSink | None) -> requests.Response:
        response = self._uploads.send(upload, self._ready(), self._place, progress)
        # An answer that was lost is made up for by asking for the blob.
        return response or self.request("HEAD", f"{self.url}/blobs/{upload.digest}")
