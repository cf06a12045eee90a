"""Certificates that sign images: read from files, and verified up to one that is trusted."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from concil.errors import UsageError, safe_repr
from concil.trust.public_key import read_key_file, require_cryptography
from concil.trust.rejection import Reason, Rejection

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

MAX_CHAIN = 10  # certificates
_REMEDY = "give the certificate of the signer or of its CA: PEM, -----BEGIN CERTIFICATE-----"


def read_certificates(path: str | Path) -> tuple[bytes, ...]:
    """Return the certificates of a PEM file, in DER.

    Raises:
        UsageError: it has none, or is a private key; the package cryptography is missing.
    """
    require_cryptography()
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415  # an extra
    from cryptography.x509 import load_pem_x509_certificates  # noqa: PLC0415  # as above

    content, name = read_key_file(path), safe_repr(str(path))
    if b"PRIVATE KEY-----" in content:
        raise UsageError(
            f"{name}: this has a private key, which is not needed to verify signatures",
            remedy="give the certificate alone, and keep the private key secret",
        )
    try:
        certificates = load_pem_x509_certificates(content)
    except ValueError as error:
        raise UsageError(f"{name} is not a certificate", remedy=_REMEDY) from error
    return tuple(certificate.public_bytes(Encoding.DER) for certificate in certificates)


def load_chain(entries: Sequence[bytes]) -> list[Certificate]:
    """Load the certificates of a signature, from that of the signer on.

    Raises:
        Rejection: one is malformed or has a key of an unknown kind, or there are none or too many.
    """
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415  # an extra
    from cryptography.x509 import (  # noqa: PLC0415  # as above
        DuplicateExtension,
        InvalidVersion,
        UnsupportedGeneralNameType,
        load_der_x509_certificate,
    )

    if not 0 < len(entries) <= MAX_CHAIN:
        raise Rejection(Reason.MALFORMED, "its signature has no list of certificates")
    try:
        chain = [load_der_x509_certificate(entry) for entry in entries]
        # Both are parsed when they are first used.
        for certificate in chain:
            certificate.public_key()
            list(certificate.extensions)
    except (
        ValueError,
        UnsupportedAlgorithm,
        DuplicateExtension,
        InvalidVersion,
        UnsupportedGeneralNameType,
    ) as error:
        raise Rejection(Reason.MALFORMED, "its signature has a malformed certificate") from error
    return chain


def verify_chain(chain: Sequence[Certificate], trusted: Sequence[bytes], now: datetime) -> None:
    """Verify the certificates of a signature up to one that is trusted.

    Args:
        chain: from that of the signer on, each issued by the next.
        trusted: certificates in DER, of CAs or of the signer itself.
    Raises:
        Rejection: the chain does not lead to a trusted certificate, one of it is not valid now,
            or the first one is not for signing code.
    Source: RFC 5280, 6.1; notaryproject/specifications, signature-specification.md, "Certificate
        Requirements".
    """
    _check_purpose(chain[0])
    trusted_chain = _trusted_part(chain, trusted)
    for certificate in trusted_chain:
        _check_restrictions(certificate)
        if now < certificate.not_valid_before_utc:
            raise Rejection(Reason.NOT_VALID, "its certificate is not valid yet")
        if now > certificate.not_valid_after_utc:
            end = f"{certificate.not_valid_after_utc:%Y-%m-%d}"
            raise Rejection(Reason.NOT_VALID, f"its certificate expired on {end}")


def _trusted_part(chain: Sequence[Certificate], trusted: Sequence[bytes]) -> list[Certificate]:
    """Return the certificates up to the first that is trusted, or that a trusted one has issued."""
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415  # an extra
    from cryptography.x509 import load_der_x509_certificate  # noqa: PLC0415  # as above

    anchors = [load_der_x509_certificate(entry) for entry in trusted]
    part: list[Certificate] = []
    for depth, certificate in enumerate(chain):
        if part and not _has_issued(certificate, part[-1], depth - 1):
            break
        part.append(certificate)
        if certificate.public_bytes(Encoding.DER) in trusted:
            return part
        for anchor in anchors:
            if _has_issued(anchor, certificate, depth):
                return [*part, anchor]
    raise Rejection(Reason.OTHER_SIGNER, "its certificate is not one of those that are trusted")


def _has_issued(issuer: Certificate, certificate: Certificate, depth: int) -> bool:
    """Whether a CA has issued a certificate.

    Args:
        depth: number of CAs below the issuer.
    """
    from cryptography.exceptions import (  # noqa: PLC0415  # an extra
        InvalidSignature,
        UnsupportedAlgorithm,
    )
    from cryptography.x509 import (  # noqa: PLC0415  # as above
        BasicConstraints,
        ExtensionNotFound,
        KeyUsage,
    )

    try:
        certificate.verify_directly_issued_by(issuer)
        basic = issuer.extensions.get_extension_for_class(BasicConstraints).value
        usage = issuer.extensions.get_extension_for_class(KeyUsage).value
    except (InvalidSignature, UnsupportedAlgorithm, ExtensionNotFound, TypeError, ValueError):
        return False
    is_short = basic.path_length is None or depth <= basic.path_length
    return basic.ca and is_short and usage.key_cert_sign


def _check_restrictions(certificate: Certificate) -> None:
    """Check that nothing restricts a certificate to another purpose, or in an unknown way.

    Source: RFC 5280, 4.2, 4.2.1.12.
    """
    from cryptography import x509  # noqa: PLC0415  # an extra

    # Names and policies are not compared, so that these restrict nothing.
    known = (
        x509.BasicConstraints,
        x509.KeyUsage,
        x509.ExtendedKeyUsage,
        x509.SubjectAlternativeName,
        x509.CertificatePolicies,
    )
    purposes = {
        x509.oid.ExtendedKeyUsageOID.CODE_SIGNING,
        x509.oid.ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
    }
    for extension in certificate.extensions:
        value = extension.value
        if isinstance(value, x509.ExtendedKeyUsage) and purposes.isdisjoint(value):
            raise Rejection(Reason.NOT_VALID, "its certificate is not for signing code")
        if extension.critical and not isinstance(value, known):
            raise Rejection(
                Reason.NOT_VALID, "its certificate has a restriction that is not supported"
            )


def _check_purpose(certificate: Certificate) -> None:
    """Check that a certificate is for signatures of code, and not that of a CA."""
    from cryptography.x509 import (  # noqa: PLC0415  # an extra
        BasicConstraints,
        ExtendedKeyUsage,
        ExtensionNotFound,
        KeyUsage,
    )
    from cryptography.x509.oid import ExtendedKeyUsageOID  # noqa: PLC0415  # as above

    try:
        extensions = certificate.extensions
        is_for_signatures = extensions.get_extension_for_class(KeyUsage).value.digital_signature
    except (ExtensionNotFound, ValueError):
        is_for_signatures = False
    else:
        for extension in extensions:
            if isinstance(extension.value, ExtendedKeyUsage):
                is_for_code = ExtendedKeyUsageOID.CODE_SIGNING in extension.value
                is_for_signatures = is_for_signatures and is_for_code
            elif isinstance(extension.value, BasicConstraints):
                is_for_signatures = is_for_signatures and not extension.value.ca
    if not is_for_signatures:
        raise Rejection(Reason.NOT_VALID, "its certificate is not for signing code")
