"""Parses regsync files.

Source: regclient, docs/regsync.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from concil.errors import ConcilError, UsageError
from concil.oci.platform import Platform
from concil.plan.formats.regsync_hosts import Hosts, render_template, warn_ignored
from concil.plan.formats.yaml_nodes import YAMLValue
from concil.plan.rule import NameFilter, ParsedPlan, Rule
from concil.plan.tag_filter import TagFilter, compile_pattern
from concil.plan.versions import VersionRange

# Both mean the same here: signatures are copied however the registry lists them.
_REFERRER_FIELDS = ("referrers", "digestTags")
_SYNC_FIELDS = (
    "source",
    "target",
    "type",
    "tags",
    "repos",
    "platform",
    "platforms",
    *_REFERRER_FIELDS,
)
_TAG_FIELDS = ("allow", "deny", "semverRange")
_REPOSITORY_FIELDS = ("allow", "deny")
_TYPES = ("image", "repository", "registry")
# Fields that are options of the mirror here, not fields of a plan.
_OPTION_BY_FIELD = {"parallel": "workers=", "skipDockerConfig": "authfile="}


def parse_plan(document: YAMLValue) -> ParsedPlan:
    """Parse a regsync file.

    Raises:
        UsageError: an entry is invalid; the message names its line.
    """
    fields = document.as_mapping("the file")
    for name in fields:
        if name not in ("version", "creds", "sync", "defaults") and not name.startswith("x-"):
            warn_ignored(fields[name], name)
    if "version" in fields and fields["version"].as_text("version") != "1":
        raise fields["version"].location.error("version: only version 1 is supported")
    defaults = fields.get("defaults", YAMLValue(None, document.location)).as_mapping("defaults")
    for name, item in defaults.items():
        if name not in _REFERRER_FIELDS:
            warn_ignored(item, f"defaults: {name}", _OPTION_BY_FIELD.get(name, ""))
    hosts = Hosts.parse(fields.get("creds", YAMLValue(None, document.location)))
    default_referrers = _parse_referrers(defaults, "defaults")
    entries = fields["sync"].as_list("sync") if "sync" in fields else []
    rules = tuple(_parse_rule(entry, hosts, referrers=default_referrers) for entry in entries)
    return ParsedPlan(rules, hosts.limits, hosts.tls_by_host)


def is_regsync(document: YAMLValue) -> bool:
    """Return whether a document is a regsync file, and not a skopeo file."""
    if not isinstance(document.value, dict):
        return False
    return any(
        isinstance(getattr(document.value.get(name), "value", None), list)
        for name in ("sync", "creds")
    )


def _parse_referrers(fields: Mapping[str, YAMLValue], section: str) -> bool | None:
    """Return whether referrers are copied; None if the section does not say so."""
    values = []
    for name in _REFERRER_FIELDS:
        if name in fields:
            value = fields[name].value
            if not isinstance(value, bool):
                raise fields[name].location.error(f"{section}: {name} is neither true nor false")
            values.append(value)
    return any(values) if values else None


def _parse_rule(entry: YAMLValue, hosts: Hosts, *, referrers: bool | None) -> Rule:
    fields = entry.as_mapping("sync")
    for name, item in fields.items():
        if name not in _SYNC_FIELDS:
            warn_ignored(item, f"sync: {name}")
    for name in ("source", "target", "type"):
        if name not in fields:
            raise entry.location.error(f"sync: an entry without {name}")
    kind = fields["type"].as_text("type")
    if kind not in _TYPES:
        raise fields["type"].location.error(
            f"sync: type {kind!r} is not supported", f"choose one of {', '.join(_TYPES)}"
        )
    source, target = _source_and_target(fields)
    if kind == "registry" and "/" in source:
        raise fields["source"].location.error(
            "sync: the source is not a registry", "write host[:port]"
        )
    resolve = hosts.registry_address if kind == "registry" else hosts.image_address
    rule_referrers = _parse_referrers(fields, "sync")
    return Rule(
        str(entry.location),
        _parse_address(source, resolve),
        _parse_address(target, resolve),
        None if kind == "image" else _parse_tag_filter(fields.get("tags")),
        tuple(_parse_platforms(fields)),
        referrers if rule_referrers is None else rule_referrers,
        repository_filter=_parse_repository_filter(fields.get("repos"))
        if kind == "registry"
        else None,
    )


def _source_and_target(fields: Mapping[str, YAMLValue]) -> tuple[str, str]:
    """Return source and target with their templates expanded; a target may use its source."""
    names = ("source", "target", "type", "interval", "schedule")
    template_fields = {f"Sync.{n.title()}": fields[n].text for n in names if n in fields}
    source = render_template(fields["source"], "source", template_fields)
    return source, render_template(
        fields["target"], "target", {**template_fields, "Sync.Source": source}
    )


def _parse_address(text: str, resolve: Callable[[str], str]) -> str:
    """Return an address; ocidir:// is a layout."""
    prefix, scheme, path = text.partition("ocidir://")
    return f"oci:{path}" if scheme and not prefix else resolve(text)


def _parse_tag_filter(item: YAMLValue | None) -> TagFilter:
    fields = item.as_mapping("tags") if item is not None else {}
    for name, ignored in fields.items():
        if name not in _TAG_FIELDS:
            warn_ignored(ignored, f"tags: {name}")
    allow = _parse_patterns(fields.get("allow"), "tags")
    versions = None
    ranges = (
        [] if "semverRange" not in fields else list(fields["semverRange"].as_texts("semverRange"))
    )
    if ranges:
        try:
            versions = VersionRange.parse(" || ".join(ranges))
        except UsageError as error:
            raise fields["semverRange"].location.error(str(error), error.remedy) from error
    pattern = None
    if allow:
        try:
            pattern = compile_pattern("|".join(f"(?:{allowed.pattern})" for allowed in allow))
        except re.error as error:
            cause = f"tags: not a regular expression: {error}"
            raise fields["allow"].location.error(cause) from error
    return TagFilter(
        pattern=pattern,
        version_range=versions,
        excluded=_parse_patterns(fields.get("deny"), "tags"),
    )


def _parse_repository_filter(item: YAMLValue | None) -> NameFilter:
    fields = item.as_mapping("repos") if item is not None else {}
    for name, ignored in fields.items():
        if name not in _REPOSITORY_FIELDS:
            warn_ignored(ignored, f"repos: {name}")
    return NameFilter(
        _parse_patterns(fields.get("allow"), "repos"), _parse_patterns(fields.get("deny"), "repos")
    )


def _parse_patterns(item: YAMLValue | None, name: str) -> tuple[re.Pattern[str], ...]:
    if item is None:
        return ()
    try:
        return tuple(compile_pattern(text) for text in item.as_texts(name))
    except re.error as error:
        raise item.location.error(f"{name}: not a regular expression: {error}") from error


def _parse_platforms(fields: Mapping[str, YAMLValue]) -> Iterator[str]:
    for name in ("platform", "platforms"):
        item = fields.get(name)
        for text in item.as_texts(name) if item is not None else ():
            try:
                Platform.parse(text)
            except ConcilError as error:
                assert item is not None  # noqa: S101 - for the type checker
                raise item.location.error(f"{name}: {error}", error.remedy) from error
            yield text
