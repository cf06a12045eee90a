"""NotifySettings: where a plan sends notifications, and which."""

from __future__ import annotations

from concil.runtime.dataclass import dataclass

EVENTS = ("failure", "recovery", "new", "quota")
DEFAULT_EVENTS = frozenset({"failure", "recovery", "quota"})
DEFAULT_TIMEOUT = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class NotifySettings:
    """The `[notify]` table of a plan."""

    location: str  # file and line, for messages
    webhook: str | None = None  # URL; its path may be a secret
    secret_variable: str | None = None  # name of the environment variable with the webhook's secret
    secret_file: str | None = None  # file with the webhook's secret
    command: tuple[str, ...] = ()  # program and arguments, without a shell
    events: frozenset[str] = DEFAULT_EVENTS  # of `EVENTS`
    timeout: float = DEFAULT_TIMEOUT  # seconds for one attempt
