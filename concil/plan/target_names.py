"""Builds destination addresses below a prefix."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence

from concil.errors import UsageError, safe_repr
from concil.oci.address import (
    LOCAL_SCHEMES,
    Address,
    LayoutAddress,
    parse_address,
)
from concil.oci.foreign_address import translate_address
from concil.oci.reference import Reference
from concil.plan.rule import Rule

_SCHEMES = ("docker://", "https://", "http://", *LOCAL_SCHEMES)


_TEMPLATE_FIELD = re.compile(r"\{([^{}]*)\}")


class DestinationPrefix:
    """Maps images to addresses below one destination."""

    def __init__(self, destination: str) -> None:
        """Parse the destination.

        Raises:
            UsageError: it is neither a prefix in a registry nor a layout or archive.
        """
        destination = translate_address(destination)
        self._destination = destination
        self._is_local = destination.startswith(LOCAL_SCHEMES)
        if self._is_local:
            address = parse_address(destination)
            if not isinstance(address, LayoutAddress) or address.name or address.digest:
                raise UsageError(
                    "the destination of a mirror is a layout, not a single image: "
                    f"{safe_repr(destination)}",
                    remedy="write oci:DIR or oci-archive:FILE",
                )
            return
        self._prefix = destination.rstrip("/")
        without_scheme = self._prefix.rpartition("://")[2]
        last_component = without_scheme.rpartition("@")[2].partition("/")[2].rpartition("/")[2]
        if ":" in last_component or re.search(r"@sha\d+:", without_scheme):
            raise UsageError(
                f"the destination of a mirror is a prefix, not a single tag: "
                f"{safe_repr(hide_credentials(destination))}",
                remedy="write host[:port]/prefix or oci:DIR",
            )
        parse_address(f"{self._prefix}/probe:probe")  # raises if the prefix is invalid

    def resolve(self, source: Address, target: str | None) -> str:
        """Return the destination address of a source, as a user would write it.

        Args:
            target: a name below the destination, or a full address with its scheme; None: the
                name of the source.
        Raises:
            UsageError: the source has no name.
        """
        if target is not None:
            target = translate_address(target)
            if target.startswith(_SCHEMES):
                return target
        name = self._default_name(source) if target is None else target.strip("/")
        if self._is_local:
            return f"{self._destination}:{name}"
        return f"{self._prefix}/{name}"

    def _default_name(self, source: Address) -> str:
        if isinstance(source, Reference):
            return self._repository_name(source)
        if source.name is None:
            raise UsageError(
                f"{source} has no name from which a target can be derived",
                remedy="write SOURCE -> REPOSITORY:TAG",
            )
        if self._is_local:
            return source.name
        if not {":", "/"} & set(source.name):
            raise UsageError(
                f"{source} does not name a repository", remedy="write SOURCE -> REPOSITORY:TAG"
            )
        return self._repository_name(Reference.parse(source.name))

    def _repository_name(self, source: Reference) -> str:
        """Return the repository path in a registry, or the full image name in a layout."""
        if self._is_local:
            # An image without a tag needs a name: a layout has no entries by digest alone.
            pinned = f"sha256-{source.digest.hex}" if source.digest else "latest"
            return f"{source.host}/{source.repository}:{source.tag or pinned}"
        if source.tag or not source.digest:
            return f"{source.repository}:{source.tag or 'latest'}"
        return f"{source.repository}@{source.digest}"


def target_addresses(
    rule: Rule, source: Address, prefixes: Sequence[DestinationPrefix]
) -> list[str]:
    """Return the addresses of all destinations of an image.

    Args:
        rule: the rule that the image belongs to.
        prefixes: destinations of all images, below which each target is resolved.
    Raises:
        UsageError: there is no destination, two are the same, or a template is invalid.
    """
    addresses: list[str] = []
    for template in rule.targets:
        target = None if template is None else _fill_in(template, rule, source)
        if not prefixes and (target is None or rule.needs_destination):
            raise UsageError(
                "it has no target", remedy="give it a target, or give a destination for all images"
            )
        # A target with its scheme does not depend on the prefix.
        resolved = [prefix.resolve(source, target) for prefix in prefixes] or [target or ""]
        addresses += dict.fromkeys(resolved)
    seen: set[tuple[str, ...]] = set()
    for address in addresses if len(addresses) > 1 else ():
        parsed = parse_address(address)
        key = address_key(parsed)
        if key in seen:
            raise UsageError(
                f"{parsed} would be written twice", remedy="omit one of its destinations"
            )
        seen.add(key)
    return addresses


def _fill_in(template: str, rule: Rule, source: Address) -> str:
    """Return a target with the values of its fields."""
    if rule.tag_filter is not None and "{tag}" not in template:
        template = _with_tag(template)
    return _TEMPLATE_FIELD.sub(lambda found: _field_value(found[1], source), template)


def _with_tag(template: str) -> str:
    """Add a tag field to a template without one; layout names get host and repository."""
    if is_local(template):
        return f"{template}:{{host}}/{{repository}}:{{tag}}"
    return f"{template}:{{tag}}"


def is_local(address: str) -> bool:
    """Return whether an address is that of a layout or archive."""
    return translate_address(address).startswith(LOCAL_SCHEMES)


def _field_value(name: str, source: Address) -> str:
    """Return the value of ``{name}`` in a template."""
    if isinstance(source, LayoutAddress):
        values = {"tag": source.name or ""}
    else:
        values = {
            "host": source.host,
            "repository": source.repository,
            "name": source.repository.rpartition("/")[2],
            "tag": _tag_of(source),
        }
    if name not in values:
        raise UsageError(
            f"unknown field in a target: {{{safe_repr(name)}}}",
            remedy=f"known fields: {', '.join(f'{{{field_name}}}' for field_name in values)}",
        )
    return values[name]


def _tag_of(source: Reference) -> str:
    if source.tag is None and source.digest is not None:
        return f"sha256-{source.digest.hex}"
    return source.tag or "latest"


def address_key(address: Address) -> tuple[str, ...]:
    """Return a key that is equal for all spellings of one target."""
    if isinstance(address, LayoutAddress):
        name = address.name or str(address.digest or "")
        return (address.scheme, os.path.realpath(address.path), name)
    return (address.api_host, address.repository, address.manifest_reference)


def repository_key(key: tuple[str, ...]) -> tuple[str, ...]:
    """Return the repository of a target's key; in a layout the part of the name before the tag."""
    *repository, name = key
    if f"{key[0]}:" in LOCAL_SCHEMES:
        return (*repository, name.rpartition(":")[0])
    return tuple(repository)


def hash_key(*key: str) -> bytes:
    """Return a 16-byte hash of a key, to keep a hundred thousand of them in little memory."""
    return hashlib.blake2b("\0".join(key).encode(), digest_size=16).digest()


def hide_credentials(text: str) -> str:
    """Return the text without users and passwords of URLs and addresses."""
    return re.sub(r"(?<=//)[^/@\s]*@|(?<![^\s>])[^/@\s]*:[^/@\s]*@", "", text)
