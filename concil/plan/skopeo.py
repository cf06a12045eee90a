"""The file of `skopeo sync --src yaml`: registries, and what is wanted of each.

Source: skopeo-sync(1), "YAML file content".
"""

from __future__ import annotations

import logging
import os
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path

from concil.errors import UsageError, shown
from concil.plan.rules import Plan, Rule
from concil.plan.tags import TagFilter, compile_pattern
from concil.plan.versions import VersionRange
from concil.plan.yaml_nodes import Item
from concil.reference import same_docker
from concil.registry.certificates import read_directory
from concil.registry.http_session import TLSSettings

logger = logging.getLogger(__name__)

_FIELDS = (
    *("images", "images-by-tag-regex", "images-by-semver"),
    *("credentials", "tls-verify", "cert-dir"),
)
TARGET = "{name}"  # as skopeo names images without --scoped


def plan(document: Item) -> Plan:
    """Read the registries of a file.

    Raises:
        UsageError: an entry is unknown or makes no sense; its line is named.
    """
    rules: list[Rule] = []
    settings = {}
    for host, registry in document.mapping("the file").items():
        fields = registry.mapping(host)
        for name, item in fields.items():
            if name not in _FIELDS:
                raise item.place.wrong(
                    f"{host}: unknown field {name!r}", f"known are: {', '.join(_FIELDS)}"
                )
        tls = _tls(host, fields)
        if tls != TLSSettings():
            settings[same_docker(host.lower())] = tls
        rules += _registry(f"{_user(fields.get('credentials'), host)}{host}", fields)
    return Plan(tuple(rules), tls=settings)


def _tls(host: str, fields: Mapping[str, Item]) -> TLSSettings:
    """How a registry is to be trusted; without verification it may speak plain http."""
    verify, directory = fields.get("tls-verify"), fields.get("cert-dir")
    if verify is not None and not isinstance(verify.value, bool):
        raise verify.place.wrong(f"{host}: tls-verify is neither true nor false")
    path = None
    if directory is not None:
        path = directory.text(f"{host}: cert-dir")
        if not os.path.exists(path):  # noqa: PTH110 - as to skopeo: one that is hidden, too
            logger.warning("%s: cert-dir: there is no directory %s", directory.place, shown(path))
            path = None
        else:
            try:
                read_directory(Path(path))
            except UsageError as error:
                raise directory.place.wrong(f"{host}: {error}", error.remedy) from error
    return TLSSettings(verify=verify is None or verify.value, cert_dir=path)


def _user(credentials: Item | None, host: str) -> str:
    """The user and password in front of a host, as a URL has them."""
    if credentials is None:
        return ""
    fields = credentials.mapping(f"{host}: credentials")
    if set(fields) != {"username", "password"}:
        raise credentials.place.wrong(f"{host}: credentials are a username and a password")
    user, password = (
        urllib.parse.quote(fields[name].text(f"{host}: {name}"), safe="")
        for name in ("username", "password")
    )
    return f"docker://{user}:{password}@"


def _rule(item: Item, source: str, tags: TagFilter | None, target: str = TARGET) -> Rule:
    return Rule(str(item.place), source, target, tags, below=True)


def _registry(host: str, fields: dict[str, Item]) -> Iterator[Rule]:
    empty = Item({}, next(iter(fields.values())).place) if fields else None
    for repository, item in _repositories(fields.get("images", empty)):
        source = f"{host}/{repository}"
        references = list(item.texts(repository))
        digests = [text for text in references if text.startswith(("sha256:", "sha512:"))]
        for digest in digests:
            yield _rule(item, f"{source}@{digest}", None, f"{TARGET}@{digest}")
        tags = tuple(text for text in references if text not in digests)
        if tags or not digests:
            yield _rule(item, source, TagFilter(tags))
    for repository, item in _repositories(fields.get("images-by-tag-regex", empty)):
        text = item.text(repository)
        try:
            pattern = compile_pattern(f".*(?:{text}).*")  # skopeo's need not meet the whole tag
        except re.error as error:
            raise item.place.wrong(f"{repository}: not a regular expression: {error}") from error
        yield _rule(item, f"{host}/{repository}", TagFilter(match=pattern))
    for repository, item in _repositories(fields.get("images-by-semver", empty)):
        try:
            versions = VersionRange.parse(item.text(repository))
        except UsageError as error:
            raise item.place.wrong(f"{repository}: {error}", error.remedy) from error
        yield _rule(item, f"{host}/{repository}", TagFilter(versions=versions))


def _repositories(item: Item | None) -> Iterator[tuple[str, Item]]:
    if item is not None:
        yield from item.mapping("images").items()
