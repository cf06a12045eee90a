"""KeySigner: who may sign an image with a key."""

from __future__ import annotations

from typing import Protocol

from concil.oci.manifest import Digest
from concil.runtime.dataclass import dataclass
from concil.trust.bundle import read_envelope
from concil.trust.public_key import PublicKey
from concil.trust.rejection import Reason, Rejection
from concil.trust.signatures import NotationSignature, Signature, SimpleSignature
from concil.trust.signed_payload import check_simple_signing, check_statement


class Signer(Protocol):
    """Who may sign an image."""

    @property
    def signer_id(self) -> str:
        """A text that is equal for signers that sign alike."""
        ...

    def verify(self, signature: Signature, digest: Digest) -> None:
        """Verify that the signature is of this signer, and of this digest.

        Raises:
            Rejection: it is not.
            UsageError: a package that is needed is not installed.
        """
        ...


@dataclass(frozen=True, slots=True)
class KeySigner:
    """The owner of a key. Transparency logs are not consulted."""

    key: PublicKey

    @property
    def signer_id(self) -> str:
        """The key."""
        return self.key.pem.decode()

    def verify(self, signature: Signature, digest: Digest) -> None:
        """Verify a signature. See `Signer`.

        What is signed is parsed only after its signature was verified.
        """
        if isinstance(signature, SimpleSignature):
            self._check_key((signature.signature,), signature.payload)
            check_simple_signing(signature.payload, digest)
            return
        if isinstance(signature, NotationSignature):
            raise Rejection(
                Reason.OTHER_SIGNER, "it is signed with a certificate of Notation, not with a key"
            )
        envelope = read_envelope(signature.content)
        self._check_key(envelope.signatures, envelope.signed_content)
        check_statement(envelope.payload, digest)

    def _check_key(self, signatures: tuple[bytes, ...], content: bytes) -> None:
        if not any(self.key.has_signed(signature, content) for signature in signatures):
            raise Rejection(
                Reason.OTHER_SIGNER,
                "it is signed by another key, or its signature was changed afterwards",
            )
