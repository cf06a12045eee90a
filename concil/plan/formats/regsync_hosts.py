"""Parses the registries section of regsync files: logins, TLS and limits."""

from __future__ import annotations

import contextlib
import logging
import urllib.parse
from collections.abc import Mapping
from dataclasses import field

from concil.config import HostLimits
from concil.errors import UsageError
from concil.http.certs_d import parse_ca_certs
from concil.http.requests_session import TLSSettings
from concil.oci.reference import DOCKER_HUB, is_host_like, normalize_docker_host
from concil.plan.formats import go_template
from concil.plan.formats.yaml_nodes import YAMLValue
from concil.runtime.dataclass import dataclass

logger = logging.getLogger(__name__)

_FIELDS = ("registry", "user", "pass", "tls", "regcert", "reqPerSec", "reqConcurrent")
_SCHEME_BY_TLS = {"enabled": "docker://", "insecure": "docker://", "disabled": "http://"}


@dataclass(slots=True)
class Hosts:
    """Settings of the registries in a file, by host name as users write it."""

    address_prefixes: dict[str, str] = field(default_factory=dict)  # scheme and user
    limits: dict[str, HostLimits] = field(default_factory=dict)
    tls_by_host: dict[str, TLSSettings] = field(default_factory=dict)

    @classmethod
    def parse(cls, creds: YAMLValue) -> Hosts:
        """Parse the list `creds`.

        Raises:
            UsageError: an entry is invalid; the message names its line.
        """
        hosts = cls()
        for entry in creds.as_list("creds"):
            fields = entry.as_mapping("creds")
            if "registry" not in fields:
                raise entry.location.error("creds: an entry without registry")
            host = normalize_docker_host(render_template(fields["registry"], "registry"))
            hosts._add(host, fields)
        return hosts

    def image_address(self, text: str) -> str:
        """Return the address of a repository or image, with the scheme and login of its host."""
        first, slash, _ = text.partition("/")
        if not slash or not is_host_like(first):
            prefix = self.address_prefixes.get(DOCKER_HUB)
            return text if prefix is None else f"{prefix}{DOCKER_HUB}/{text}"
        # With its scheme it is a complete address, also where a destination is given.
        return f"{self.address_prefixes.get(normalize_docker_host(first), 'docker://')}{text}"

    def registry_address(self, text: str) -> str:
        """Return the address of a registry, or of a prefix in one."""
        return f"{self.address_prefixes.get(normalize_docker_host(text.partition('/')[0]), 'docker://')}{text}"

    def _add(self, host: str, fields: Mapping[str, YAMLValue]) -> None:
        for name, item in fields.items():
            if name not in _FIELDS:
                warn_ignored(item, f"creds: {host}: {name}")
        tls = fields["tls"].as_text("tls") if "tls" in fields else "enabled"
        if tls not in _SCHEME_BY_TLS:
            raise fields["tls"].location.error(
                f"creds: {host}: unknown value of tls: {tls!r}",
                f"choose one of {', '.join(_SCHEME_BY_TLS)}",
            )
        self.address_prefixes[host] = f"{_SCHEME_BY_TLS[tls]}{_userinfo(host, fields)}"
        if tls == "insecure":
            self.tls_by_host[host] = TLSSettings(verify=False)
        elif "regcert" in fields:
            self.tls_by_host[host] = TLSSettings(
                ca_cert_data=_parse_authorities(host, fields["regcert"])
            )
        limits = HostLimits(
            jobs=_parse_jobs(host, fields.get("reqConcurrent")),
            requests=_parse_request_rate(host, fields.get("reqPerSec")),
        )
        if limits != HostLimits():
            self.limits[host] = limits


def render_template(item: YAMLValue, name: str, fields: Mapping[str, str] | None = None) -> str:
    """Return a text with its templates expanded.

    Args:
        fields: values of the template fields, by name.
    Raises:
        UsageError: it is not a string, a template is invalid, or a variable or file is missing.
    """
    text = _render_text(item, name, fields or {})
    if isinstance(text, go_template.MissingValue):
        raise item.location.error(f"{name}: {text.reason}")
    return text


def warn_ignored(item: YAMLValue, name: str, option: str = "") -> None:
    """Warn that a field is ignored.

    Args:
        option: the option of concil that replaces it.
    """
    logger.warning(
        "%s: %s is ignored%s", item.location, name, f"; use {option} instead" * bool(option)
    )


def _render_text(item: YAMLValue, name: str, fields: Mapping[str, str]) -> str:
    try:
        return go_template.render(item.as_text(name), fields)
    except UsageError as error:
        if str(error).startswith(str(item.location)):
            raise
        raise item.location.error(f"{name}: {error}", error.remedy) from error


def _userinfo(host: str, fields: Mapping[str, YAMLValue]) -> str:
    """Return user and password as the prefix of a URL's host; "" without them."""
    items = [fields[name] for name in ("user", "pass") if name in fields]
    texts = [
        _render_secret(host, name, fields[name]) for name in ("user", "pass") if name in fields
    ]
    for item, text in zip(items, texts, strict=True):
        if isinstance(text, go_template.MissingValue):
            # regsync uses an empty password here; stored logins are a better guess.
            logger.warning(
                "%s: creds: %s: %s; these credentials are not used",
                item.location,
                host,
                text.reason,
            )
            return ""
    if len(items) == 1:
        logger.warning("%s: creds: %s: user and pass must both be given", items[0].location, host)
        return ""
    return "{}:{}@".format(*(urllib.parse.quote(text, safe="") for text in texts)) if items else ""


def _render_secret(host: str, name: str, item: YAMLValue) -> str:
    """Return a user or password; errors never quote it."""
    with contextlib.suppress(UsageError):
        return go_template.render(item.as_text(name), {})
    raise item.location.error(
        f"creds: {host}: {name} is not a supported template", go_template.REMEDY
    )


def _parse_authorities(host: str, item: YAMLValue) -> str:
    try:
        return parse_ca_certs(render_template(item, "regcert").encode())
    except ValueError as error:
        raise item.location.error(
            f"creds: {host}: regcert is not a PEM certificate", "paste the whole file"
        ) from error


def _parse_number(host: str, name: str, item: YAMLValue) -> float:
    try:
        number = float(item.as_text(name))
    except ValueError as error:
        raise item.location.error(f"creds: {host}: {name} is not a number") from error
    if not 0 <= number < 10**6:
        raise item.location.error(f"creds: {host}: {name} is not a number of 0 or more")
    return number


def _parse_jobs(host: str, item: YAMLValue | None) -> int | None:
    """Return the limit of concurrent requests; 0 means none."""
    return int(_parse_number(host, "reqConcurrent", item)) or None if item is not None else None


def _parse_request_rate(host: str, item: YAMLValue | None) -> float | None:
    """Return the limit of requests per second; 0 means none."""
    if item is None:
        return None
    rate = _parse_number(host, "reqPerSec", item) or None
    try:
        HostLimits(requests=rate)
    except UsageError as error:
        raise item.location.error(f"creds: {host}: reqPerSec: {error}") from error
    return rate
