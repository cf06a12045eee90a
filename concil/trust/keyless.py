"""KeylessSigner: an identity that signs with certificates of a Fulcio CA, verified offline."""

from __future__ import annotations

import functools
import tempfile
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from concil.errors import UsageError, safe_repr
from concil.oci.manifest import Digest
from concil.runtime.dataclass import dataclass
from concil.trust.bundle import read_envelope
from concil.trust.public_key import require_cryptography
from concil.trust.rejection import Reason, Rejection
from concil.trust.signatures import NotationSignature, Signature, SimpleSignature
from concil.trust.signed_payload import IN_TOTO, check_statement
from concil.trust.trust_root import find_expiry, read_trust_root

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from sigstore.verify import Verifier

_INSTALL = "type: pip install 'concil[keyless]'"
_NOT_CURRENT = "not valid at validation time"  # of cryptography's chain builder


@dataclass(frozen=True, slots=True)
class KeylessSigner:
    """Whoever an issuer has confirmed to be an identity, when it signed.

    The certificate, its entry in a certificate transparency log, and the entry of the signature in
    a transparency log are verified against a trust root. Nothing is read from the network.
    """

    identity: str  # an e-mail address or URI of the certificate, compared as a whole
    issuer: str  # URL
    trust_root: bytes  # trusted_root.json

    @classmethod
    def read(cls, identity: str, issuer: str, trust_root: str | Path) -> KeylessSigner:
        """Read the trust root from a file.

        Raises:
            UsageError: it is none, or has expired; a field is empty; sigstore is missing.
        """
        if not identity or not issuer:
            raise UsageError(
                "an identity needs its issuer, and the reverse",
                remedy="give both: anybody can get a certificate for some identity",
            )
        _require_sigstore()
        name = safe_repr(str(trust_root))
        content = read_trust_root(trust_root)
        signer = cls(identity, issuer, content)
        try:
            _load_verifier(content)
            expiry = find_expiry(content)
        except Exception as error:
            # The library has no list of what a malformed file raises.
            raise UsageError(
                f"{name} cannot be used as a trust root: {_first_line(error)}",
                remedy="give the trusted_root.json of the Sigstore instance",
            ) from error
        if expiry is not None and expiry < _now():
            raise UsageError(
                f"the trust root {name} expired on {expiry:%Y-%m-%d}",
                remedy="give the current trusted_root.json of the Sigstore instance",
            )
        return signer

    @property
    def signer_id(self) -> str:
        """The identity, the issuer and the trust root."""
        return "\1".join((self.identity, self.issuer, self.trust_root.decode("latin-1")))

    def verify(self, signature: Signature, digest: Digest) -> None:
        """Verify a signature. See `concil.trust.signers.Signer`."""
        if isinstance(signature, SimpleSignature):
            if not signature.has_certificate:
                raise Rejection(Reason.OTHER_SIGNER, "it is signed with a key, not by an identity")
            raise Rejection(
                Reason.UNSUPPORTED,
                "its keyless signature is in the older format of cosign 2, which cannot be "
                "verified offline: it has to be signed with cosign 3, or as a Sigstore bundle",
            )
        if isinstance(signature, NotationSignature):
            raise Rejection(
                Reason.OTHER_SIGNER,
                "it is signed with a certificate of Notation, not by an identity",
            )
        expiry = find_expiry(self.trust_root)
        if expiry is not None and expiry < _now():
            raise Rejection(Reason.NOT_VALID, f"the trust root expired on {expiry:%Y-%m-%d}")
        read_envelope(signature.content)  # says what is wrong with a bundle of another kind
        kind, payload = self._verify_bundle(signature.content)
        if kind != IN_TOTO:
            raise Rejection(Reason.UNSUPPORTED, "its Sigstore bundle has no in-toto statement")
        check_statement(payload, digest)

    def _verify_bundle(self, content: bytes) -> tuple[str, bytes]:
        """Return the type and the payload of the envelope in a bundle, once it is verified."""
        _require_sigstore()
        from sigstore.errors import CertValidationError  # noqa: PLC0415  # an extra
        from sigstore.models import Bundle  # noqa: PLC0415  # as above

        policy = _IdentityPolicy(self.identity, self.issuer)
        try:
            bundle = Bundle.from_json(content)
        except Exception as error:
            raise Rejection(
                Reason.MALFORMED, f"its Sigstore bundle is not keyless: {_first_line(error)}"
            ) from error
        try:
            return _load_verifier(self.trust_root).verify_dsse(bundle, policy)
        except CertValidationError as error:
            message = "its certificate is not of a CA of the trust root"
            if _NOT_CURRENT in str(error):
                message = "its certificate was not valid when it was signed"
            raise Rejection(Reason.NOT_VALID, message) from error
        except Exception as error:
            if policy.has_refused:
                raise Rejection(
                    Reason.OTHER_SIGNER, "it is signed by another identity, or of another issuer"
                ) from error
            raise Rejection(
                Reason.NOT_VALID, f"its keyless signature is not valid: {_first_line(error)}"
            ) from error


class _IdentityPolicy:
    """The policy of the library for an identity, which remembers that it has refused one."""

    def __init__(self, identity: str, issuer: str) -> None:
        from sigstore.verify.policy import Identity  # noqa: PLC0415  # an extra

        self.has_refused = False
        self._policy = Identity(identity=identity, issuer=issuer)

    def verify(self, cert: Certificate) -> None:
        """Raise an error of the library unless the certificate is of the identity."""
        try:
            self._policy.verify(cert)
        except Exception:
            self.has_refused = True
            raise


@functools.lru_cache(maxsize=8)
def _load_verifier(trust_root: bytes) -> Verifier:
    """Return the verifier of a trust root, which the library reads from a file only."""
    from sigstore.models import TrustedRoot  # noqa: PLC0415  # an extra
    from sigstore.verify import Verifier  # noqa: PLC0415  # as above

    with tempfile.TemporaryDirectory(prefix="concil-") as directory:
        path = Path(directory, "trusted_root.json")
        path.write_bytes(trust_root)
        return Verifier(trusted_root=TrustedRoot.from_file(str(path)))


def _now() -> datetime:
    return datetime.now(UTC)


def _require_sigstore() -> None:
    """Raise UsageError if the package sigstore is not installed."""
    require_cryptography()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what its dependencies say while they are imported
            import sigstore.verify  # noqa: F401, PLC0415  # an extra
    except ImportError as error:
        raise UsageError(
            "the verification of identities needs the package sigstore", remedy=_INSTALL
        ) from error


def _first_line(error: Exception) -> str:
    """Return the first line of an error of the library, which may quote the bundle."""
    lines = str(error).splitlines() or [type(error).__name__]
    return safe_repr(lines[0]).strip("'\"")
