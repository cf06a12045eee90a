"""What the file of regsync says of registries: logins, TLS, and how much they bear."""

from __future__ import annotations

import contextlib
import logging
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field

from concil.config import HostLimits
from concil.errors import UsageError
from concil.plan import templates
from concil.plan.yaml_nodes import Item
from concil.reference import reads_as_host, same_docker
from concil.registry.certificates import authorities_in
from concil.registry.http_session import TLSSettings

logger = logging.getLogger(__name__)

HUB = "docker.io"
_FIELDS = ("registry", "user", "pass", "tls", "regcert", "reqPerSec", "reqConcurrent")
_FRONTS = {"enabled": "docker://", "insecure": "docker://", "disabled": "http://"}


@dataclass(slots=True)
class Hosts:
    """The registries of a file, by host as people write it."""

    fronts: dict[str, str] = field(default_factory=dict)  # of their addresses: scheme and user
    limits: dict[str, HostLimits] = field(default_factory=dict)
    tls: dict[str, TLSSettings] = field(default_factory=dict)

    @classmethod
    def read(cls, creds: Item) -> Hosts:
        """Read the list `creds`.

        Raises:
            UsageError: an entry makes no sense; its line is named.
        """
        hosts = cls()
        for entry in creds.items("creds"):
            fields = entry.mapping("creds")
            if "registry" not in fields:
                raise entry.place.wrong("creds: an entry without registry")
            host = same_docker(filled(fields["registry"], "registry"))
            hosts._add(host, fields)
        return hosts

    def address(self, text: str) -> str:
        """The address of a repository or image, with what is known of its host in front."""
        first, slash, _ = text.partition("/")
        if not slash or not reads_as_host(first):
            front = self.fronts.get(HUB)
            return text if front is None else f"{front}{HUB}/{text}"
        # With its scheme it is a whole address, also where a destination is given.
        return f"{self.fronts.get(same_docker(first), 'docker://')}{text}"

    def registry(self, text: str) -> str:
        """The same of a registry, or of a prefix in one."""
        return f"{self.fronts.get(same_docker(text.partition('/')[0]), 'docker://')}{text}"

    def _add(self, host: str, fields: Mapping[str, Item]) -> None:
        for name, item in fields.items():
            if name not in _FIELDS:
                pass_over(item, f"creds: {host}: {name}")
        tls = fields["tls"].text("tls") if "tls" in fields else "enabled"
        if tls not in _FRONTS:
            raise fields["tls"].place.wrong(
                f"creds: {host}: tls is {tls!r}", f"it is one of {', '.join(_FRONTS)}"
            )
        self.fronts[host] = f"{_FRONTS[tls]}{_user(host, fields)}"
        if tls == "insecure":
            self.tls[host] = TLSSettings(verify=False)
        elif "regcert" in fields:
            self.tls[host] = TLSSettings(authorities=_authorities(host, fields["regcert"]))
        limits = HostLimits(
            jobs=_jobs(host, fields.get("reqConcurrent")),
            requests=_requests(host, fields.get("reqPerSec")),
        )
        if limits != HostLimits():
            self.limits[host] = limits


def filled(item: Item, name: str, fields: Mapping[str, str] | None = None) -> str:
    """A text with its templates filled in.

    Args:
        fields: of the templates, by name.
    Raises:
        UsageError: it is none, a template is not understood, or something is missing.
    """
    text = _text(item, name, fields or {})
    if isinstance(text, templates.Missing):
        raise item.place.wrong(f"{name}: {text.why}")
    return text


def pass_over(item: Item, name: str, say: str = "") -> None:
    """Warn that something has no meaning here.

    Args:
        say: the option that has it.
    """
    logger.warning("%s: %s is ignored here%s", item.place, name, f"; say it with {say}" * bool(say))


def _text(item: Item, name: str, fields: Mapping[str, str]) -> str:
    try:
        return templates.fill(item.text(name), fields)
    except UsageError as error:
        if str(error).startswith(str(item.place)):
            raise
        raise item.place.wrong(f"{name}: {error}", error.remedy) from error


def _user(host: str, fields: Mapping[str, Item]) -> str:
    """User and password in front of a host, as a URL has them; "" without."""
    given = [fields[name] for name in ("user", "pass") if name in fields]
    texts = [_login(host, name, fields[name]) for name in ("user", "pass") if name in fields]
    for item, text in zip(given, texts, strict=True):
        if isinstance(text, templates.Missing):
            # regsync goes on with an empty one; stored logins are a better guess.
            logger.warning("%s: creds: %s: %s; not logging in", item.place, host, text.why)
            return ""
    if len(given) == 1:
        logger.warning("%s: creds: %s: user and pass go together", given[0].place, host)
        return ""
    return "{}:{}@".format(*(urllib.parse.quote(text, safe="") for text in texts)) if given else ""


def _login(host: str, name: str, item: Item) -> str:
    """A user or password; what is wrong with it is told without it."""
    with contextlib.suppress(UsageError):
        return templates.fill(item.text(name), {})
    raise item.place.wrong(f"creds: {host}: {name} is no template that is known", templates.REMEDY)


def _authorities(host: str, item: Item) -> str:
    try:
        return authorities_in(filled(item, "regcert").encode())
    except ValueError as error:
        raise item.place.wrong(
            f"creds: {host}: regcert is no certificate in PEM", "paste the whole of the file"
        ) from error


def _number(host: str, name: str, item: Item) -> float:
    try:
        found = float(item.text(name))
    except ValueError as error:
        raise item.place.wrong(f"creds: {host}: {name} is no number") from error
    if not 0 <= found < 10**6:
        raise item.place.wrong(f"creds: {host}: {name} is no number of 0 or more")
    return found


def _jobs(host: str, item: Item | None) -> int | None:
    """Requests at once; 0 is no limit."""
    return int(_number(host, "reqConcurrent", item)) or None if item is not None else None


def _requests(host: str, item: Item | None) -> float | None:
    """Requests a second; 0 is no limit."""
    if item is None:
        return None
    found = _number(host, "reqPerSec", item) or None
    try:
        HostLimits(requests=found)
    except UsageError as error:
        raise item.place.wrong(f"creds: {host}: reqPerSec: {error}") from error
    return found
