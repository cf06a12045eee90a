"""Reads the DSSE envelope of a Sigstore bundle."""

from __future__ import annotations

from typing import Any

from concil.runtime.dataclass import dataclass
from concil.trust.rejection import Reason, Rejection
from concil.trust.signed_payload import IN_TOTO, decode_base64, parse_object

MEDIA_TYPES = frozenset(
    {
        "application/vnd.dev.sigstore.bundle+json;version=0.1",
        "application/vnd.dev.sigstore.bundle+json;version=0.2",
        "application/vnd.dev.sigstore.bundle+json;version=0.3",
        "application/vnd.dev.sigstore.bundle.v0.3+json",
    }
)
_MAX_SIGNATURES = 16  # of one envelope; cosign writes one


@dataclass(frozen=True, slots=True)
class Envelope:
    """A signed statement."""

    payload: bytes
    signatures: tuple[bytes, ...]

    @property
    def signed_content(self) -> bytes:
        """What the signatures are of.

        Source: DSSE, protocol.md, "Signature Definition": the pre-authentication encoding.
        """
        kind = IN_TOTO.encode()
        return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(self.payload), self.payload)


def read_envelope(content: bytes) -> Envelope:
    """Return the envelope of a bundle.

    Raises:
        Rejection: it is not a bundle, or has no envelope with an in-toto statement.
    Source: sigstore/protobuf-specs, sigstore_bundle.proto.
    """
    document = parse_object(content, "bundle")
    media_type = document.get("mediaType")
    if not isinstance(media_type, str) or media_type not in MEDIA_TYPES:
        raise Rejection(Reason.UNSUPPORTED, "its signature is not a Sigstore bundle of 0.1 to 0.3")
    envelope = document.get("dsseEnvelope")
    if not isinstance(envelope, dict) or envelope.get("payloadType") != IN_TOTO:
        raise Rejection(Reason.UNSUPPORTED, "its Sigstore bundle has no in-toto statement")
    return Envelope(
        decode_base64(envelope.get("payload"), "envelope"), tuple(_read_signatures(envelope))
    )


def _read_signatures(envelope: dict[str, Any]) -> list[bytes]:
    entries = envelope.get("signatures")
    if not isinstance(entries, list) or not 0 < len(entries) <= _MAX_SIGNATURES:
        raise Rejection(Reason.MALFORMED, "its Sigstore bundle has no list of signatures")
    return [
        decode_base64(entry.get("sig") if isinstance(entry, dict) else None, "envelope")
        for entry in entries
    ]
