"""The file of regsync: a list of images and repositories with their targets.

Source: regclient, docs/regsync.md.
"""

from __future__ import annotations

import logging
import os
import re
import urllib.parse
from collections.abc import Iterator, Mapping

from concil.content import Platform
from concil.errors import ConcilError, UsageError
from concil.plan.rules import Rule
from concil.plan.tags import TagFilter
from concil.plan.versions import VersionRange
from concil.plan.yaml_nodes import Item

logger = logging.getLogger(__name__)

# Here they are one: an image's signatures go along whichever way they are found.
_ALONG = ("referrers", "digestTags")
_KNOWN = ("source", "target", "type", "tags", "platform", "platforms", *_ALONG)
_ENVIRONMENT = re.compile(r"\{\{\s*env\s+\"([A-Za-z_][A-Za-z0-9_]*)\"\s*\}\}")
_TAG_FIELDS = ("allow", "deny", "semverRange")


def rules(document: Item) -> list[Rule]:
    """Read the entries of a file.

    Raises:
        UsageError: an entry makes no sense, or is of a kind that cannot be had here.
    """
    fields = document.mapping("the file")
    for name in fields:
        if name not in ("version", "creds", "sync", "defaults") and not name.startswith("x-"):
            _pass_over(fields[name], name)
    defaults = fields.get("defaults", Item(None, document.place)).mapping("defaults")
    for name, item in defaults.items():
        if name not in _ALONG:
            _pass_over(item, f"defaults: {name}")
    hosts = dict(_hosts(fields.get("creds", Item(None, document.place))))
    along = _along(defaults, "defaults")
    entries = fields["sync"].items("sync") if "sync" in fields else []
    return [_rule(entry, hosts, along=along) for entry in entries]


def is_one(document: Item) -> bool:
    """Whether a document is a file of regsync, and not one of skopeo."""
    return isinstance(document.value, dict) and isinstance(
        getattr(document.value.get("sync"), "value", None), list
    )


def _pass_over(item: Item, name: str) -> None:
    logger.warning("%s: %s is ignored here", item.place, name)


def _hosts(creds: Item) -> Iterator[tuple[str, str]]:
    """What stands in front of each registry's name in an address."""
    for entry in creds.items("creds"):
        fields = entry.mapping("creds")
        if "registry" not in fields:
            raise entry.place.wrong("creds: an entry without registry")
        host = fields["registry"].text("registry")
        for name, item in fields.items():
            if name not in ("registry", "user", "pass", "tls"):
                _pass_over(item, f"creds: {host}: {name}")
        tls = fields["tls"].text("tls") if "tls" in fields else "enabled"
        if tls == "insecure":
            logger.warning("%s: tls is ignored here; say it with --insecure", fields["tls"].place)
        scheme = "http://" if tls == "disabled" else "docker://"
        yield host, f"{scheme}{_user(fields)}"


def _user(fields: Mapping[str, Item]) -> str:
    if not {"user", "pass"} <= set(fields):
        return ""
    user, password = (
        urllib.parse.quote(_filled(fields[name], name), safe="") for name in ("user", "pass")
    )
    return f"{user}:{password}@"


def _filled(item: Item, name: str) -> str:
    """A text with its environment variables; other templates are not understood."""

    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise item.place.wrong(f"{name}: there is no environment variable {found[1]}")
        return os.environ[found[1]]

    text = _ENVIRONMENT.sub(value, item.text(name))
    if "{{" in item.text(name) and "{{" in text:
        raise item.place.wrong(f'{name}: only templates of the form {{{{env "NAME"}}}} are known')
    return text


def _along(fields: Mapping[str, Item], what: str) -> bool | None:
    """Whether referrers go along; None if that is not said."""
    wanted = []
    for name in _ALONG:
        if name in fields:
            value = fields[name].value
            if not isinstance(value, bool):
                raise fields[name].place.wrong(f"{what}: {name} is neither true nor false")
            wanted.append(value)
    return any(wanted) if wanted else None


def _rule(entry: Item, hosts: Mapping[str, str], *, along: bool | None) -> Rule:
    fields = entry.mapping("sync")
    for name, item in fields.items():
        if name not in _KNOWN:
            _pass_over(item, f"sync: {name}")
    for name in ("source", "target", "type"):
        if name not in fields:
            raise entry.place.wrong(f"sync: an entry without {name}")
    kind = fields["type"].text("type")
    if kind not in ("image", "repository"):
        raise fields["type"].place.wrong(
            f"sync: type {kind!r} cannot be had here", "name the repositories: type: repository"
        )
    source, target = (_address(fields[name], name, hosts) for name in ("source", "target"))
    tags = _tags(fields.get("tags")) if kind == "repository" else None
    own = _along(fields, "sync")
    along = along if own is None else own
    return Rule(str(entry.place), source, target, tags, tuple(_platforms(fields)), along)


def _address(item: Item, name: str, hosts: Mapping[str, str]) -> str:
    """An address with what is known of its host in front; ocidir:// is a layout."""
    text = _filled(item, name)
    layout, found, path = text.partition("ocidir://")
    if found and not layout:
        return f"oci:{path}"
    host = text.partition("/")[0]
    # With its scheme it is a whole address, also where a destination is given.
    named = "docker://" if {".", ":"} & set(host) and "/" in text else ""
    return f"{hosts.get(host, named)}{text}"


def _tags(item: Item | None) -> TagFilter:
    fields = item.mapping("tags") if item is not None else {}
    for name, found in fields.items():
        if name not in _TAG_FIELDS:
            _pass_over(found, f"tags: {name}")
    allow = _patterns(fields.get("allow"))
    versions = None
    ranges = [] if "semverRange" not in fields else list(fields["semverRange"].texts("semverRange"))
    if ranges:
        try:
            versions = VersionRange.parse(" || ".join(ranges))
        except UsageError as error:
            raise fields["semverRange"].place.wrong(str(error), error.remedy) from error
    match = re.compile("|".join(f"(?:{one.pattern})" for one in allow)) if allow else None
    return TagFilter(match=match, versions=versions, exclude=_patterns(fields.get("deny")))


def _patterns(item: Item | None) -> tuple[re.Pattern[str], ...]:
    if item is None:
        return ()
    try:
        return tuple(re.compile(text) for text in item.texts("tags"))
    except re.error as error:
        raise item.place.wrong(f"tags: not a regular expression: {error}") from error


def _platforms(fields: Mapping[str, Item]) -> Iterator[str]:
    for name in ("platform", "platforms"):
        item = fields.get(name)
        for text in item.texts(name) if item is not None else ():
            try:
                Platform.parse(text)
            except ConcilError as error:
                assert item is not None  # noqa: S101 - for the type checker
                raise item.place.wrong(f"{name}: {error}", error.remedy) from error
            yield text
