"""Parses `verify` of a plan: whose signature an image has to have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from concil.errors import UsageError, safe_repr
from concil.plan.formats.unknown_field import unknown_field_remedy
from concil.plan.rule import Verification

if TYPE_CHECKING:
    from concil.trust.policy import TrustPolicy

_KEYLESS = ("identity", "issuer", "trust_root")
_FIELDS = ("key", "certificate", *_KEYLESS)
_REMEDY = 'write verify = { key = "cosign.pub" }, a list of such tables, or false'


def parse_verification(value: object, directory: Path) -> Verification:
    """Parse the field: false, a table, or a list of tables of which one has to accept the image.

    Args:
        directory: of the plan, to which the paths of files are relative.
    Raises:
        UsageError: it is none of these, a file is no key or trust root, or a package is missing.
    """
    if value is False:
        return Verification(None)
    entries: list[Any] = value if isinstance(value, list) else [value]
    if not entries or not all(isinstance(entry, dict) and entry for entry in entries):
        raise UsageError("neither false, nor a table of a signer, nor a list", remedy=_REMEDY)
    from concil.trust.policy import TrustPolicy  # noqa: PLC0415  # few plans need it

    policies = [_parse_signer(entry, directory) for entry in entries]
    return Verification(TrustPolicy(tuple(s for policy in policies for s in policy.signers)))


def _parse_signer(table: Mapping[str, Any], directory: Path) -> TrustPolicy:
    """Return the policy of one table."""
    from concil.trust.policy import TrustPolicy  # noqa: PLC0415  # few plans need it

    for name in table:
        if name not in _FIELDS:
            raise UsageError(
                f"unknown field {safe_repr(name)}", remedy=unknown_field_remedy(name, _FIELDS)
            )
    for name, create in (
        ("key", TrustPolicy.from_keys),
        ("certificate", TrustPolicy.from_certificates),
    ):
        if name in table:
            if len(table) > 1:
                raise UsageError(
                    "a signer is either a key, a certificate or an identity",
                    remedy="write a list of two tables",
                )
            values = table[name] if isinstance(table[name], list) else [table[name]]
            return create([_path(value, directory) for value in values])
    missing = [name for name in _KEYLESS if not isinstance(table.get(name), str)]
    if missing:
        raise UsageError(
            f"an identity without {' and '.join(missing)}",
            remedy='write { identity = "...", issuer = "https://...", trust_root = "FILE" }',
        )
    trust_root = _path(table["trust_root"], directory)
    return TrustPolicy.from_identity(table["identity"], table["issuer"], trust_root)


def _path(value: object, directory: Path) -> Path:
    if not isinstance(value, str) or not value:
        raise UsageError("not the path of a file", remedy=_REMEDY)
    return directory / value
