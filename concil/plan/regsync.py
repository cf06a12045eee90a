"""The file of regsync: images, repositories and registries with their targets.

Source: regclient, docs/regsync.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from concil.content import Platform
from concil.errors import ConcilError, UsageError
from concil.plan.regsync_hosts import Hosts, filled, pass_over
from concil.plan.rules import NameFilter, Plan, Rule
from concil.plan.tags import TagFilter, compile_pattern
from concil.plan.versions import VersionRange
from concil.plan.yaml_nodes import Item

# Here they are one: an image's signatures go along whichever way they are found.
_ALONG = ("referrers", "digestTags")
_KNOWN = ("source", "target", "type", "tags", "repos", "platform", "platforms", *_ALONG)
_TAG_FIELDS = ("allow", "deny", "semverRange")
_REPOSITORY_FIELDS = ("allow", "deny")
_KINDS = ("image", "repository", "registry")
# What is said elsewhere here, not in a plan.
_ELSEWHERE = {"parallel": "workers=", "skipDockerConfig": "authfile="}


def plan(document: Item) -> Plan:
    """Read a file.

    Raises:
        UsageError: an entry makes no sense; its line is named.
    """
    fields = document.mapping("the file")
    for name in fields:
        if name not in ("version", "creds", "sync", "defaults") and not name.startswith("x-"):
            pass_over(fields[name], name)
    if "version" in fields and fields["version"].text("version") != "1":
        raise fields["version"].place.wrong("version: only 1 is known")
    defaults = fields.get("defaults", Item(None, document.place)).mapping("defaults")
    for name, item in defaults.items():
        if name not in _ALONG:
            pass_over(item, f"defaults: {name}", _ELSEWHERE.get(name, ""))
    hosts = Hosts.read(fields.get("creds", Item(None, document.place)))
    along = _along(defaults, "defaults")
    entries = fields["sync"].items("sync") if "sync" in fields else []
    rules = tuple(_rule(entry, hosts, along=along) for entry in entries)
    return Plan(rules, hosts.limits, hosts.tls)


def is_one(document: Item) -> bool:
    """Whether a document is a file of regsync, and not one of skopeo."""
    if not isinstance(document.value, dict):
        return False
    return any(
        isinstance(getattr(document.value.get(name), "value", None), list)
        for name in ("sync", "creds")
    )


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


def _rule(entry: Item, hosts: Hosts, *, along: bool | None) -> Rule:
    fields = entry.mapping("sync")
    for name, item in fields.items():
        if name not in _KNOWN:
            pass_over(item, f"sync: {name}")
    for name in ("source", "target", "type"):
        if name not in fields:
            raise entry.place.wrong(f"sync: an entry without {name}")
    kind = fields["type"].text("type")
    if kind not in _KINDS:
        raise fields["type"].place.wrong(
            f"sync: type {kind!r} is not known", f"it is one of {', '.join(_KINDS)}"
        )
    source, target = _sides(fields)
    if kind == "registry" and "/" in source:
        raise fields["source"].place.wrong("sync: the source is no registry", "write host[:port]")
    place = hosts.registry if kind == "registry" else hosts.address
    own = _along(fields, "sync")
    return Rule(
        str(entry.place),
        _address(source, place),
        _address(target, place),
        None if kind == "image" else _tags(fields.get("tags")),
        tuple(_platforms(fields)),
        along if own is None else own,
        repositories=_repositories(fields.get("repos")) if kind == "registry" else None,
    )


def _sides(fields: Mapping[str, Item]) -> tuple[str, str]:
    """Source and target with their templates filled in: a target may name its source."""
    names = ("source", "target", "type", "interval", "schedule")
    known = {f"Sync.{n.title()}": fields[n].written for n in names if n in fields}
    source = filled(fields["source"], "source", known)
    return source, filled(fields["target"], "target", {**known, "Sync.Source": source})


def _address(text: str, place: Callable[[str], str]) -> str:
    """An address; ocidir:// is a layout."""
    layout, found, path = text.partition("ocidir://")
    return f"oci:{path}" if found and not layout else place(text)


def _tags(item: Item | None) -> TagFilter:
    fields = item.mapping("tags") if item is not None else {}
    for name, found in fields.items():
        if name not in _TAG_FIELDS:
            pass_over(found, f"tags: {name}")
    allow = _patterns(fields.get("allow"), "tags")
    versions = None
    ranges = [] if "semverRange" not in fields else list(fields["semverRange"].texts("semverRange"))
    if ranges:
        try:
            versions = VersionRange.parse(" || ".join(ranges))
        except UsageError as error:
            raise fields["semverRange"].place.wrong(str(error), error.remedy) from error
    match = None
    if allow:
        try:
            match = compile_pattern("|".join(f"(?:{one.pattern})" for one in allow))
        except re.error as error:
            cause = f"tags: not a regular expression: {error}"
            raise fields["allow"].place.wrong(cause) from error
    return TagFilter(match=match, versions=versions, exclude=_patterns(fields.get("deny"), "tags"))


def _repositories(item: Item | None) -> NameFilter:
    fields = item.mapping("repos") if item is not None else {}
    for name, found in fields.items():
        if name not in _REPOSITORY_FIELDS:
            pass_over(found, f"repos: {name}")
    return NameFilter(
        _patterns(fields.get("allow"), "repos"), _patterns(fields.get("deny"), "repos")
    )


def _patterns(item: Item | None, what: str) -> tuple[re.Pattern[str], ...]:
    if item is None:
        return ()
    try:
        return tuple(compile_pattern(text) for text in item.texts(what))
    except re.error as error:
        raise item.place.wrong(f"{what}: not a regular expression: {error}") from error


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
