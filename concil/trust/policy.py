"""TrustPolicy: the signers of whom one has to have signed an image."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import field
from pathlib import Path

from concil.errors import UntrustedImage, UsageError
from concil.oci.manifest import Digest
from concil.runtime.dataclass import dataclass
from concil.transfer.signatures.verifier import SignatureReader
from concil.trust.keyless import KeylessSigner
from concil.trust.notation import CertificateSigner
from concil.trust.public_key import PublicKey
from concil.trust.rejection import Rejection
from concil.trust.signatures import find_signatures
from concil.trust.signers import KeySigner, Signer

_UNSIGNED = "no signature was found"


@dataclass(frozen=True, slots=True)
class TrustPolicy:
    """Accepts an image if one of several signers has signed it. It has the keys themselves."""

    signers: tuple[KeySigner | KeylessSigner | CertificateSigner, ...] = field(repr=False)

    def __post_init__(self) -> None:
        """Check that there is a signer: a policy without any would accept nothing."""
        if not self.signers:
            raise UsageError("a policy needs a signer", remedy="give a public key")

    @classmethod
    def from_keys(cls, paths: Iterable[str | Path]) -> TrustPolicy:
        """Return the policy that accepts signatures of any of these keys.

        Args:
            paths: files with a public key in PEM each, such as cosign.pub.
        Raises:
            UsageError: a file is no public key, or the package cryptography is missing.
        """
        return cls(tuple(KeySigner(PublicKey.read(path)) for path in paths))

    @classmethod
    def from_identity(cls, identity: str, issuer: str, trust_root: str | Path) -> TrustPolicy:
        """Return the policy that accepts keyless signatures of an identity.

        Args:
            identity: an e-mail address, or the URL of a workflow.
            issuer: the URL of the service that has confirmed the identity.
            trust_root: a file, trusted_root.json. Nothing is read from the network.
        Raises:
            UsageError: the file is no trust root or has expired, or the package sigstore is
                missing.
        """
        return cls((KeylessSigner.read(identity, issuer, trust_root),))

    @classmethod
    def from_certificates(cls, paths: Iterable[str | Path]) -> TrustPolicy:
        """Return the policy that accepts signatures of Notation with any of these certificates.

        Args:
            paths: PEM files with certificates of signers or of CAs, which may issue others.
        Raises:
            UsageError: a file is no certificate, or the package cryptography is missing.
        """
        return cls(tuple(CertificateSigner.read(path) for path in paths))

    @property
    def policy_id(self) -> str:
        """The digest of the signers, in any order."""
        ids = sorted({signer.signer_id for signer in self.signers})
        return hashlib.sha256("\0".join(ids).encode()).hexdigest()

    def verify(self, reader: SignatureReader, digest: Digest) -> None:
        """Verify the signatures of a manifest or index. See `ImageVerifier`.

        Raises:
            UntrustedImage: it has no signature of one of the signers.
        """
        rejection: Rejection | None = None
        for signature in find_signatures(reader, digest):
            if isinstance(signature, Rejection):
                rejection = _more_telling(rejection, signature)
                continue
            for signer in self.signers:
                failure = _try_verify(signer, signature, digest)
                if failure is None:
                    return
                rejection = _more_telling(rejection, failure)
        raise _untrusted(reader, digest, rejection)


def _try_verify(signer: Signer, signature: object, digest: Digest) -> Rejection | None:
    """Verify a signature; return why it does not count."""
    try:
        signer.verify(signature, digest)  # type: ignore[arg-type]
    except Rejection as rejection:
        return rejection
    return None


def _more_telling(first: Rejection | None, second: Rejection) -> Rejection:
    return second if first is None or second.reason > first.reason else first


def _untrusted(
    reader: SignatureReader, digest: Digest, rejection: Rejection | None
) -> UntrustedImage:
    """Return the error of an image without a signature that counts."""
    reason = _UNSIGNED if rejection is None else str(rejection)
    operation = f"cannot verify {reader.image_name}"
    error = UntrustedImage(
        f"{operation}: {reason} ({digest})",
        remedy="sign the image, or correct the keys and identities that are accepted",
    )
    error.host, error.operation, error.reason = reader.store.host, operation, reason
    return error
