"""DockerHub: the client of one repository."""

from __future__ import annotations

import os
import urllib.parse
from typing import Any, NoReturn, Self

import requests

from concil.auth.credentials.credentials import CredentialPrompt, CredentialProviders, Credentials
from concil.auth.credentials.keychain import AuthFilePaths, Keychain
from concil.auth.scope import Scopes
from concil.config import RetryPolicy, Timeouts, TransferConfig
from concil.dockerhub.request import (
    ANY_MEDIA_TYPE,
    accept_header,
    build_call,
    manifest_reference,
    raise_for_status,
    read_body,
    with_manifest_accept,
)
from concil.dockerhub.upload import (
    BlobUploader,
    bytes_source,
    file_source,
    journal_destination,
)
from concil.dockerhub.url import parse_docker_url
from concil.engine.layer import LayerArchive
from concil.engine.verified_response import VerifiedResponse, wrap_response
from concil.http.adapter import reset_foreign_adapters
from concil.http.requests_session import TLSSettings, create_session
from concil.http.throttle.host_limiters import HostLimiters
from concil.http.transport import Transport, drain_response
from concil.oci.blob_reader import BlobReader
from concil.oci.manifest import Digest
from concil.oci.media_types import DOCKER_MANIFEST, DOCKER_SCHEMA1
from concil.oci.reference import check_repository, check_tag, is_loopback
from concil.progress.events import ProgressSink
from concil.registry.client import RegistryClient
from concil.registry.endpoint import Call, Endpoint
from concil.runtime import arguments
from concil.runtime.cancellation import SupportsIsSet, call_scope
from concil.runtime.forking import register_after_fork
from concil.store.registry.blob_body import RegistryBlobReader
from concil.transfer.blob.source import BlobSource
from concil.transfer.context import TransferContext


class DockerHub:
    """One repository of a registry.

    Any thread may call any method. ``session`` sends every request: settings made on it
    (verify, cert, proxies, headers, adapters) take effect. ``username`` and ``password`` may
    be set at any time. A forked child uses its own connections and tokens.
    """

    def __init__(
        self,
        docker_url: str,
        verify: bool | str | os.PathLike[str] | None = None,  # noqa: FBT001 - documented as positional
        *,
        timeout: float | tuple[float | None, float | None] | Timeouts | None = None,
        retry: int | RetryPolicy | None = None,
    ) -> None:
        """Parse the URL without sending a request.

        Args:
            docker_url: ``docker://[user:password@]host[:port]/repository[:tag|@digest]``;
                ``http://`` for plain http.
            verify: a CA file or directory, or False to disable verification.
            timeout: seconds without a byte in either direction, default 60; or a pair
                (connect, read) as in requests.
            retry: number of attempts in a row without progress, default 6; 1: no retries.
        Raises:
            InvalidReference: the URL is malformed.
            TypeError: an argument, named in the message, has another type.
        """
        parts = parse_docker_url(docker_url)
        unquote = urllib.parse.unquote_plus
        self.username = None if parts.username is None else unquote(parts.username)
        self.password = None if parts.password is None else unquote(parts.password)
        self.repository = check_repository(parts.repository) if parts.repository else ""
        self.tag = parts.tag
        self._timeouts = Timeouts.from_argument("timeout", timeout)
        self._retry_policy = RetryPolicy.from_argument("retry", retry)
        session = create_session(TLSSettings(arguments.to_verify(verify)))
        session.headers["Docker-Distribution-Api-Version"] = "registry/2.0"
        self._allows_plain_http = parts.scheme in ("docker", "store")
        self._create_client(session, parts.url)
        register_after_fork(self, DockerHub._after_fork)

    def _create_client(self, session: requests.Session, url: str) -> None:
        """Create the objects that requests share, without sending a request."""
        self._context = TransferContext(TransferConfig(retry=self._retry_policy))
        limiters = HostLimiters(max_retry_after=self._retry_policy.max_retry_after)
        self._transport = Transport(
            session, timeouts=self._timeouts, cancel=self._context.cancel, host_limiters=limiters
        )
        self._keychain = Keychain(AuthFilePaths.resolve(None), cancel=self._context.cancel)
        self._uploader = BlobUploader(self._context)
        self.url = url

    def _after_fork(self) -> None:
        """Create new connections, tokens and locks in a forked child."""
        reset_foreign_adapters(self.session)
        self._create_client(self.session, self.url)

    def __reduce__(self) -> NoReturn:
        """Raise TypeError: connections cannot be pickled."""
        raise TypeError(
            "a DockerHub cannot be pickled: create one from its URL in the process that uses it"
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
        """The URL of the repository in the registry's API; http if the registry has no https."""
        return self._endpoint.base_url + self._api_path

    @url.setter
    def url(self, url: str) -> None:
        parts = urllib.parse.urlsplit(arguments.check_str("url", url))
        prompt = CredentialPrompt(parts.netloc, lambda: self.username, self._save_credentials)
        self._api_path = parts.path
        repository_path = parts.netloc + parts.path.removeprefix("/v2")
        self._endpoint = Endpoint(
            self._transport,
            f"{parts.scheme}://{parts.netloc}",
            providers=CredentialProviders(
                stored=lambda: self._keychain.find_credentials(repository_path, self.username),
                prompt=prompt,
            ),
            allow_plain_http=self._allows_plain_http and is_loopback(parts.netloc),
        )
        repository = parts.path.removeprefix("/v2/")
        self._client = RegistryClient(self._endpoint, repository, policy=self._retry_policy)

    def request(self, method: str, url: str, **kw: Any) -> requests.Response:  # noqa: ANN401
        """Send a request with the registry's credentials.

        Args:
            url: absolute; credentials are sent only to the registry itself.
            kw: any keyword of ``requests.request``.
        Returns:
            The response; its body is unread with ``stream=True``.
        Raises:
            StatusError: a requests.HTTPError and RuntimeError; starts with the status code.
            ConnectionLost, TLSFailure: there was no response.
        """
        arguments.check_str("method", method)
        stream = bool(kw.pop("stream", False))
        call = build_call(method, arguments.check_str("url", url), self._scopes(method), kw)
        if self.session.headers.get("Accept", ANY_MEDIA_TYPE) == ANY_MEDIA_TYPE:
            call = with_manifest_accept(call)
        response = raise_for_status(self._send(call))
        if not stream:
            read_body(response)
        return response

    def post_blob(
        self,
        filename: str | os.PathLike[str],
        *,
        progress: ProgressSink | None = None,
        cancel: SupportsIsSet | None = None,
    ) -> requests.Response:
        """Upload a file that is named after its digest: ``<hex>`` or ``sha256:<hex>``.

        Large files are sent in chunks and resumed after a failure, even by another process.

        Args:
            cancel: a ``threading.Event`` that cancels this upload when set.
        Returns:
            The response that committed the blob.
        Raises:
            InvalidDigest: the file's name is not a digest.
            DigestMismatch: the file has another digest; nothing was committed.
        """
        with call_scope(cancel, is_callback_error_fatal=False):
            return self._upload(file_source(filename, self._context.cancel), progress)

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
            cancel: a ``threading.Event`` that cancels this upload when set.
        Returns:
            The response that committed the blob.
        Raises:
            DigestMismatch: the bytes have another digest; nothing was committed.
        """
        with call_scope(cancel, is_callback_error_fatal=False):
            return self._upload(bytes_source(data, digest), progress)

    def post_manifest(
        self,
        data: bytes,
        tag: str | Digest | None = None,
        content_type: str = DOCKER_MANIFEST,
    ) -> requests.Response:
        """Upload a manifest under ``tag``, by default the URL's; return the response."""
        body = bytes(arguments.to_memoryview("data", data))
        name = str(tag) if isinstance(tag, Digest) else arguments.check_optional_str("tag", tag)
        name = self.tag if name is None else name
        reference = str(Digest.parse(name)) if ":" in name else check_tag(name)
        media_type = arguments.check_str("content_type", content_type)
        return self._authorized_client().put_manifest(body, media_type, reference)

    def open_blob(
        self, digest: str | Digest, *, progress: ProgressSink | None = None
    ) -> VerifiedResponse:
        """Open a blob as a streaming response that is verified while it is read.

        After a lost connection it resumes with a Range request. Close it, or use it in a
        ``with`` block, which at its end, unless it raises, verifies an unread rest of up to
        16 MiB.

        Raises:
            RegistryNotFound: there is no such blob.
        """
        blob_digest = Digest.from_argument("digest", digest)

        def reopen(start: int, /) -> BlobReader:
            return RegistryBlobReader.from_range_response(
                self._authorized_client().get_blob(blob_digest, start), start
            )

        arguments.check_callable("progress", progress)
        response = self._authorized_client().get_blob(blob_digest, policy=self._retry_policy)
        return wrap_response(response, blob_digest, reopen, progress, self._context)

    def open_layer(
        self, digest: str | Digest, *, progress: ProgressSink | None = None
    ) -> LayerArchive:
        """Open a layer as a `tarfile.TarFile` in stream mode; closing it verifies all bytes.

        It may be compressed with gzip, bzip2, xz or, if Python supports it, zstd. Use it in a
        ``with`` block: closing it without an error reads the rest, whatever its length.

        Raises:
            RegistryNotFound: there is no such blob.
            ContentError: it is not a tar archive.
        """
        response = self.open_blob(digest, progress=progress)
        return LayerArchive.from_reader(response.raw, response.close)

    def has_blob(self, digest: str | Digest) -> bool:
        """Whether the repository has the blob; any error but 404 is raised."""
        return (
            self._authorized_client().head_blob(Digest.from_argument("digest", digest)) is not None
        )

    def open_manifest(
        self,
        hash: str | Digest | None = None,  # noqa: A002 - documented
        accept: str | None = DOCKER_SCHEMA1,
    ) -> requests.Response:
        """Open the manifest of a tag or digest, by default the URL's, as a streaming response.

        Args:
            hash: a tag, a digest, or the hex of a sha256.
            accept: accepted media types, separated by commas; None: any.
        """
        name = manifest_reference(hash, self.tag)
        client = self._authorized_client()
        headers = {"Accept": accept_header(accept)}
        call = Call("GET", client.path(f"manifests/{name}"), client.pull_scopes, headers)

        def reopen(_start: int = 0, /) -> BlobReader:
            return RegistryBlobReader(client.endpoint.send(call), 0)

        response = client.endpoint.send_with_retry(call, client.policy)
        if ":" not in name:
            return response
        return wrap_response(response, Digest.parse(name), reopen, None, self._context)

    def get_manifest(
        self,
        hash: str | Digest | None = None,  # noqa: A002 - documented
        accept: str | None = DOCKER_SCHEMA1,
    ) -> bytes:
        """Return the bytes of a manifest, verified if it is requested by digest.

        Raises:
            InvalidManifest: it is larger than 4 MiB.
            DigestMismatch: it has another digest.
        """
        return self._authorized_client().read_manifest(
            manifest_reference(hash, self.tag), accept_header(accept)
        )[0]

    def close(self) -> None:
        """Close the session's connections; the hub can be used again."""
        self.session.close()

    def _send(self, call: Call) -> requests.Response:
        endpoint = self._authorized_client().endpoint
        if call.body is not None and call.rewind is None and not isinstance(call.body, bytes):
            # Authorize first: a body that can be read only once cannot be resent after a 401.
            drain_response(endpoint.send_authorized(Call("GET", "/v2/", call.scopes)))
        return endpoint.send_authorized(call)

    def _scopes(self, method: str) -> Scopes:
        is_read = method.upper() in ("GET", "HEAD", "OPTIONS")
        return self._client.pull_scopes if is_read else self._client.push_scopes

    def _authorized_client(self) -> RegistryClient:
        """Return the client, with the current user name and password."""
        credentials = None
        if self.username and self.password is not None:
            credentials = Credentials(self.username, self.password)
        self._endpoint.authenticator.credentials = credentials
        return self._client

    def _save_credentials(self, credentials: Credentials) -> None:
        """Store credentials that were entered at the prompt."""
        self.username, self.password = credentials.username, credentials.password

    def _upload(self, source: BlobSource, progress: ProgressSink | None) -> requests.Response:
        client = self._authorized_client()
        destination = journal_destination(client, is_explicit=not self._allows_plain_http)
        response = self._uploader.upload(source, client, destination, progress)
        # If the response to the commit was lost, return one that shows the blob.
        return response or self.request("HEAD", f"{self.url}/blobs/{source.digest}")
