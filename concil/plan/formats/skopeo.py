"""Parses the YAML files of `skopeo sync`.

Source: skopeo-sync(1), "YAML file content".
"""

from __future__ import annotations

import logging
import os
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path

from concil.errors import UsageError, safe_repr
from concil.http.certs_d import read_directory
from concil.http.requests_session import TLSSettings
from concil.oci.reference import normalize_docker_host
from concil.plan.formats.unknown_field import unknown_field_remedy
from concil.plan.formats.yaml_nodes import YAMLValue
from concil.plan.rule import ParsedPlan, Rule
from concil.plan.tag_filter import TagFilter, compile_pattern
from concil.plan.versions import VersionRange

logger = logging.getLogger(__name__)

_FIELDS = (
    *("images", "images-by-tag-regex", "images-by-semver"),
    *("credentials", "tls-verify", "cert-dir"),
)
TARGET_TEMPLATE = "{name}"  # the name that skopeo gives images without --scoped


def parse_plan(document: YAMLValue) -> ParsedPlan:
    """Parse the registries of a file.

    Raises:
        UsageError: an entry is unknown or invalid; the message names its line.
    """
    rules: list[Rule] = []
    settings = {}
    for host, registry in document.as_mapping("the file").items():
        fields = registry.as_mapping(host)
        for name, item in fields.items():
            if name not in _FIELDS:
                raise item.location.error(
                    f"{host}: unknown field {name!r}", unknown_field_remedy(name, _FIELDS)
                )
        tls = _parse_tls(host, fields)
        if tls != TLSSettings():
            settings[normalize_docker_host(host.lower())] = tls
        rules += _parse_registry(f"{_userinfo(fields.get('credentials'), host)}{host}", fields)
    return ParsedPlan(tuple(rules), tls_by_host=settings)


def _parse_tls(host: str, fields: Mapping[str, YAMLValue]) -> TLSSettings:
    """Return the TLS settings of a registry; without verification plain http is allowed."""
    verify, directory = fields.get("tls-verify"), fields.get("cert-dir")
    if verify is not None and not isinstance(verify.value, bool):
        raise verify.location.error(f"{host}: tls-verify is neither true nor false")
    path = None
    if directory is not None:
        path = directory.as_text(f"{host}: cert-dir")
        if not os.path.exists(path):  # noqa: PTH110 - like skopeo: unreadable is missing
            logger.warning(
                "%s: cert-dir: there is no directory %s", directory.location, safe_repr(path)
            )
            path = None
        else:
            try:
                read_directory(Path(path))
            except UsageError as error:
                raise directory.location.error(f"{host}: {error}", error.remedy) from error
    return TLSSettings(verify=verify is None or verify.value, cert_dir=path)


def _userinfo(credentials: YAMLValue | None, host: str) -> str:
    """Return user and password as the prefix of a URL's host."""
    if credentials is None:
        return ""
    fields = credentials.as_mapping(f"{host}: credentials")
    if set(fields) != {"username", "password"}:
        raise credentials.location.error(f"{host}: credentials need a username and a password")
    user, password = (
        urllib.parse.quote(fields[name].as_text(f"{host}: {name}"), safe="")
        for name in ("username", "password")
    )
    return f"docker://{user}:{password}@"


def _create_rule(
    item: YAMLValue, source: str, tags: TagFilter | None, target: str = TARGET_TEMPLATE
) -> Rule:
    return Rule(str(item.location), source, target, tags, needs_destination=True)


def _parse_registry(host: str, fields: dict[str, YAMLValue]) -> Iterator[Rule]:
    empty = YAMLValue({}, next(iter(fields.values())).location) if fields else None
    for repository, item in _repositories(fields.get("images", empty)):
        source = f"{host}/{repository}"
        references = list(item.as_texts(repository))
        digests = [text for text in references if text.startswith(("sha256:", "sha512:"))]
        for digest in digests:
            yield _create_rule(item, f"{source}@{digest}", None, f"{TARGET_TEMPLATE}@{digest}")
        tags = tuple(text for text in references if text not in digests)
        if tags or not digests:
            yield _create_rule(item, source, TagFilter(tags))
    for repository, item in _repositories(fields.get("images-by-tag-regex", empty)):
        text = item.as_text(repository)
        try:
            pattern = compile_pattern(f".*(?:{text}).*")  # skopeo matches parts of tags
        except re.error as error:
            raise item.location.error(f"{repository}: not a regular expression: {error}") from error
        yield _create_rule(item, f"{host}/{repository}", TagFilter(pattern=pattern))
    for repository, item in _repositories(fields.get("images-by-semver", empty)):
        try:
            versions = VersionRange.parse(item.as_text(repository))
        except UsageError as error:
            raise item.location.error(f"{repository}: {error}", error.remedy) from error
        yield _create_rule(item, f"{host}/{repository}", TagFilter(version_range=versions))


def _repositories(item: YAMLValue | None) -> Iterator[tuple[str, YAMLValue]]:
    if item is not None:
        yield from item.as_mapping("images").items()
