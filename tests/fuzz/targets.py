"""What is fuzzed: one function a parser, that raises what nobody expects."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from tarfile import GNU_FORMAT, PAX_FORMAT, TarInfo

from concil.auth import challenge
from concil.errors import ConcilError
from concil.http.content_range import parse_content_range_start
from concil.http.network_policy import is_internal
from concil.http.pagination import parse_next_link
from concil.http.redirects import resolve_location
from concil.http.urls import host_of, origin, redact_url
from concil.oci.address import LayoutAddress, parse_address
from concil.oci.descriptor import Descriptor
from concil.oci.digest import Digest
from concil.oci.manifest import Manifest
from concil.oci.media_types import INDEX_TYPES, MANIFEST_TYPES
from concil.oci.reference import Reference
from concil.registry.upload_session import parse_range
from concil.store.archive.tar_headers import TarMembers
from concil.store.layout.index import Index
from concil.trust.bundle import read_envelope
from concil.trust.notation import CertificateSigner
from concil.trust.public_key import PublicKey
from concil.trust.rejection import Rejection
from concil.trust.signatures import NotationSignature
from concil.trust.signed_payload import (
    COSIGN_TYPE,
    SIGN_PREDICATE,
    STATEMENT_TYPES,
    check_simple_signing,
    check_statement,
)

Target = Callable[[bytes], None]
_TYPES = ("", *sorted(INDEX_TYPES | MANIFEST_TYPES))
_LARGEST = 10**19


def challenges(content: bytes) -> None:
    """WWW-Authenticate: nothing is raised, and what is found stood in the header."""
    header = content.decode("latin-1")
    for one in challenge.parse_challenges([header]):
        assert one.scheme == one.scheme.lower()
        assert len(one.parameters) <= len(header)


def references(content: bytes) -> None:
    """The grammar of references: what is taken is read again as the same."""
    text = content.decode("utf-8", "surrogateescape")
    with contextlib.suppress(ConcilError):
        address = parse_address(text)
        if isinstance(address, LayoutAddress):
            assert parse_address(str(address)) == address
        if isinstance(address, Reference):
            again = Reference.parse(str(address))
            assert (again.host, again.repository) == (address.host, address.repository)
            assert (again.tag, again.digest) == (address.tag, address.digest)
            assert ".." not in address.repository


def manifests(content: bytes) -> None:
    """Manifests, indexes and the index of a layout."""
    kind = _TYPES[content[0] % len(_TYPES)] if content else ""
    body = content[1:]
    with contextlib.suppress(ConcilError):
        manifest = Manifest.parse(body, kind)
        assert manifest.digest == Digest.from_bytes(body)
        _used(manifest)
    with contextlib.suppress(ConcilError):
        index = Index.parse(body, "index")
        list(index.names())
        index.set_entry("name", index.entries[0] if index.entries else _ENTRY)
        index.to_bytes()


def ranges(content: bytes) -> None:
    """Range of an upload's answer, Content-Range of a download's."""
    text = content.decode("latin-1")
    held, begun = parse_range(text), parse_content_range_start(text)
    assert held is None or 0 <= held <= _LARGEST
    assert begun is None or 0 <= begun < _LARGEST


def links(content: bytes) -> None:
    """Link: what is found stood in the header."""
    header = content.decode("latin-1")
    target = parse_next_link(header)
    assert target is None or target in header


def locations(content: bytes) -> None:
    """Location: what is followed is a URL of http that everybody reads in the same way."""
    location = content.decode("latin-1")
    assert redact_url(location).isascii()
    assert isinstance(host_of(location), str)
    with contextlib.suppress(ConcilError):
        target = resolve_location("https://reg.example/v2/", location)
        scheme, host, _ = origin(target)
        assert scheme == "https"
        assert host.isascii()
        assert not is_internal(host)


def archives(content: bytes) -> None:
    """The headers of a tar archive: what is found lies within it."""

    def read(offset: int, size: int) -> bytes:
        return content[offset : offset + size]

    with contextlib.suppress(ConcilError):
        members = TarMembers(read, len(content), "archive")
        for name in members.names():
            assert not name.startswith("/")
            assert ".." not in name.split("/")
            found = members.find(name)
            assert found is None or 0 <= found.offset <= found.offset + found.size <= len(content)


def signatures(content: bytes) -> None:
    """What a signature says, and the files of keys: it is accepted, or there is a reason."""
    for check in (
        lambda: check_simple_signing(content, _ENTRY.digest),
        lambda: check_statement(content, _ENTRY.digest),
        lambda: read_envelope(content),
        lambda: PublicKey.parse(content, "key"),
        lambda: CertificateSigner(()).verify(NotationSignature(content), _ENTRY.digest),
    ):
        with contextlib.suppress(Rejection, ConcilError):
            check()


def _used(manifest: Manifest) -> None:
    assert all(child.size >= 0 for child in manifest.children())
    assert all(str(blob.digest) for blob in manifest.blobs())
    assert isinstance(manifest.artifact_type, str)
    assert isinstance(manifest.annotations, dict)
    subject = manifest.subject
    assert subject is None or Descriptor.from_json(subject.to_json()) == subject


_ENTRY = Descriptor("a/b", Digest.from_bytes(b""), 0)
TARGETS: Mapping[str, Target] = {
    one.__name__: one
    for one in (challenges, references, manifests, ranges, links, locations, archives, signatures)
}
_DIGEST = "sha256:" + "0123456789abcdef" * 4
_DESCRIPTOR = f'{{"mediaType":"application/x","digest":"{_DIGEST}","size":7}}'
_TAR = "".join(
    block.decode("latin-1")
    for block in (
        *(TarInfo("a" * 120).tobuf(form) for form in (GNU_FORMAT, PAX_FORMAT)),
        TarInfo.create_pax_global_header({"comment": "c"}),
        bytes(1024),
    )
)
_SIMPLE_SIGNING = (
    f'{{"critical":{{"image":{{"docker-manifest-digest":"{_DIGEST}"}},"type":"{COSIGN_TYPE}"}}}}'
)
_STATEMENT = (
    f'{{"_type":"{STATEMENT_TYPES[0]}","predicateType":"{SIGN_PREDICATE}",'
    f'"subject":[{{"digest":{{"sha256":"{_DIGEST[7:]}"}}}}]}}'
)
_BUNDLE = (
    '{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","dsseEnvelope":{"payload":'
    '"e30=","payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"AAAA"}]}}'
)
_KEY = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0=\n-----END PUBLIC KEY-----"
_ENVELOPE = (
    '{"payload":"e30","protected":"eyJhbGciOiJFUzI1NiJ9","header":{"x5c":["MIIB"]},'
    '"signature":"AAAA"}'
)
# Whence the search begins.
SEEDS: Mapping[str, tuple[str, ...]] = {
    "challenges": (
        'Bearer realm="https://a.example/token",service="s",scope="repository:x:pull,push"',
        'Basic realm=r, Bearer realm="r\\"q", Negotiate abc==',
    ),
    "references": (
        f"docker://user:pw@reg.example:5000/team/app:v1@{_DIGEST}",
        "http://[::1]:5000/a/b",
        f"oci:dir/sub:name@{_DIGEST}",
        f"oci-archive:dir/file.tar:name@{_DIGEST}",
        "docker-archive:file.tar:alpine:3",
    ),
    "manifests": (
        f'\x02{{"config":{_DESCRIPTOR},"layers":[{_DESCRIPTOR}],"subject":{_DESCRIPTOR}}}',
        f'\x03{{"layers":[{_DESCRIPTOR}],"annotations":{{"a":"b"}},"artifactType":"a/b"}}',
        f'\x00{{"schemaVersion":2,"manifests":[{_DESCRIPTOR}]}}',
    ),
    "ranges": ("0-99", "bytes=0-99", "bytes 0-99/100", "bytes 5-9/*"),
    "links": ('</v2/a/tags/list?n=1>; rel="next"', "<a>; rel=prev, b; rel=next"),
    "archives": (_TAR,),
    "signatures": (_SIMPLE_SIGNING, _STATEMENT, _BUNDLE, _KEY, _ENVELOPE),
    "locations": ("/v2/a?b=c", "https://storage.example:443/k?X-Sig=a", "//[::1]/x", "?a"),
}
# Words that a search by chance would need long for.
WORDS = (
    *("realm", "service", "scope", "error", "Bearer ", "Basic ", '"', "\\", ",", "=", " "),
    *("docker://", "oci:", "http://", "https://", "@", "[::1]", "localhost", ":5000", _DIGEST),
    *('{"mediaType":', '"digest":', '"size":', '"manifests":', '"layers":', '"config":', "[", "]"),
    *('"urls":', '"platform":', '"annotations":', '"subject":', "{", "}", "null", "1e999"),
    *("\\ud800", "bytes=", "bytes ", "0-", "/*", "9" * 30, "rel=", "next", "<", ">", ";"),
    *("127.0.0.1", "0x7f000001", "%", "..", "\x1b", "\x00", "\xff", "#", "?"),
)
