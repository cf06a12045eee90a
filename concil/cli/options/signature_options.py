"""Declares and reads the options for signatures: whom an image is accepted from."""

from __future__ import annotations

TYPE_CHECKING = False  # as that of typing, which takes longer to import than this module
if TYPE_CHECKING:
    import argparse

    from concil.transfer.signatures.verifier import ImageVerifier


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name signers."""
    group = parser.add_argument_group("signatures")
    group.add_argument(
        "--verify-key",
        metavar="FILE",
        action="append",
        default=[],
        help="accept only what has a signature of cosign by this public key (PEM); may be "
        "repeated: one of the keys is enough; needs concil[verify]",
    )
    group.add_argument(
        "--verify-certificate",
        metavar="FILE",
        action="append",
        default=[],
        help="accept only what has a signature of Notation with this certificate, or with one "
        "that this CA has issued (PEM); may be repeated; needs concil[verify]",
    )
    group.add_argument(
        "--verify-identity",
        metavar="ID",
        help="accept only what this identity has signed without a key: an e-mail address or the "
        "URL of a workflow; needs --verify-issuer, --trust-root and concil[keyless]",
    )
    group.add_argument(
        "--verify-issuer", metavar="URL", help="the service that has confirmed the identity"
    )
    group.add_argument(
        "--trust-root",
        metavar="FILE",
        help="the trusted_root.json of the Sigstore instance; nothing is read from the network",
    )


def build_verifier(arguments: argparse.Namespace) -> ImageVerifier | None:
    """Return the verifier of the options; None: images are not verified.

    Raises:
        UsageError: an option is missing, a file cannot be used, or a package is not installed.
    """
    names = ("verify_identity", "verify_issuer", "trust_root")
    given = [name for name in names if getattr(arguments, name) is not None]
    if not (arguments.verify_key or arguments.verify_certificate or given):
        return None
    from concil.errors import UsageError  # noqa: PLC0415  # as above
    from concil.trust.policy import TrustPolicy  # noqa: PLC0415  # few commands need it

    policies = []
    if arguments.verify_key:
        policies.append(TrustPolicy.from_keys(arguments.verify_key))
    if arguments.verify_certificate:
        policies.append(TrustPolicy.from_certificates(arguments.verify_certificate))
    if given:
        missing = [f"--{name.replace('_', '-')}" for name in names if name not in given]
        if missing:
            raise UsageError(
                f"--{given[0].replace('_', '-')} needs {' and '.join(missing)}",
                remedy="give --verify-identity, --verify-issuer and --trust-root together",
            )
        policies.append(
            TrustPolicy.from_identity(
                arguments.verify_identity, arguments.verify_issuer, arguments.trust_root
            )
        )
    return TrustPolicy(tuple(signer for policy in policies for signer in policy.signers))
