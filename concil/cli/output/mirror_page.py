"""The live page of `concil mirror --http`: its options, and what it learns of the runs."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from concil.cli.context import CommandContext
from concil.cli.options.http_token import read_token, refuse_token_without_page
from concil.cli.options.listen_address import parse_listen_address
from concil.cli.output import logs
from concil.cli.output.errors import describe_error, replace_parameters, single_line
from concil.cli.output.reports import report_title
from concil.display.display import Display
from concil.errors import Cancelled, ConcilError, UsageError, safe_repr
from concil.oci.reference import is_loopback
from concil.runtime.redaction import without_user

TYPE_CHECKING = False  # as that of typing, which takes longer to import than this module
if TYPE_CHECKING:
    from concil.display.stopping import Stopping
    from concil.progress.events import Event
    from concil.progress.snapshot import ProgressSnapshot
    from concil.service.service_status import RunKind, RunResult
    from concil.transfer.mirror.report import Outcome
    from concil.web.endpoints import RenderMetrics
    from concil.web.live_mirror import LiveMirror


class MirrorPage:
    """What the live page learns of a mirror. Without a page it does nothing. Thread-safe."""

    def __init__(self, live: LiveMirror | None) -> None:
        """Set what collects it; None: there is no page."""
        self._live = live

    def record_schedule(self, gap: float) -> None:
        """Record the seconds between the beginnings of two runs."""
        if self._live is not None:
            self._live.status.record_schedule(gap)

    def record_plan_problem(self, problem: str) -> None:
        """Record why the plan cannot be used as it is now; empty: it can."""
        if self._live is not None:
            self._live.status.record_plan_problem(single_line(problem))

    def record_turn(self, run_in: float, retry_in: float | None) -> None:
        """Record that the service waits for so many seconds: until a run, and a retry."""
        if self._live is not None:
            self._live.status.record_turn(run_in, retry_in)

    def stop(self) -> None:
        """Record that the service is about to end."""
        if self._live is not None:
            self._live.status.stop()

    def begin_run(self, kind: RunKind) -> None:
        """Record the beginning of a run."""
        if self._live is not None:
            self._live.begin_run(kind)

    def leave_out_run(self, kind: RunKind) -> None:
        """Record a run that was left out."""
        if self._live is not None:
            self._live.leave_out_run(kind)

    def end_run(self, result: RunResult, detail: str = "") -> None:
        """Record the end of the run."""
        if self._live is not None:
            self._live.end_run(result, detail)

    def record_outcome(self, outcome: Outcome) -> None:
        """Record the outcome of an image."""
        if self._live is not None:
            self._live.status.record_outcome(outcome)

    def record_failed_listing(self, source: str, error: ConcilError) -> None:
        """Record that the tags of a repository, or a registry, could not be listed."""
        if self._live is not None:
            self._live.status.record_failed_listing(source, error)

    def observe(self, display: Display) -> Display:
        """Return a display that also tells the page what it shows."""
        return display if self._live is None else _ObservedDisplay(display, self._live)


@contextlib.contextmanager
def open_page(
    command: CommandContext,
    request_run: Callable[[], bool] | None = None,
    metrics: RenderMetrics | None = None,
) -> Iterator[MirrorPage]:
    """Serve the live page, if there is one, until the end of the ``with`` block.

    Args:
        request_run: lets a run begin now; None: the mirror runs once.
        metrics: returns OpenMetrics text for /metrics; None: there are no metrics.
    Raises:
        UsageError: the address or the token cannot be used.
        StoreError: the address is in use.
    """
    arguments = command.arguments
    if arguments.http is None:
        refuse_token_without_page(arguments)
        yield MirrorPage(None)
        return
    address = parse_listen_address(arguments.http)
    token = read_token(arguments)
    if not token and not is_loopback(address[0]):
        raise UsageError(
            f"everybody who can reach {safe_repr(arguments.http)} could read the live page",
            remedy="give a token with --http-token-file, or serve it at 127.0.0.1",
        )
    from concil.service.service_status import ServiceStatus  # noqa: PLC0415  # only with a page
    from concil.web.live_mirror import LiveMirror, MirrorNames  # noqa: PLC0415
    from concil.web.live_server import LiveServer  # noqa: PLC0415

    live = LiveMirror(
        MirrorNames(
            report_title(arguments),
            Path(arguments.plan).name,
            _destination_text(arguments),
        ),
        ServiceStatus(describe_failure),
        request_run,
    )
    with LiveServer(live, address, token=token, metrics=metrics) as server:
        command.print_message(f"concil: the live page is at {server.url}")
        yield MirrorPage(live)


@contextlib.contextmanager
def observe_single_run(command: CommandContext) -> Iterator[tuple[CommandContext, MirrorPage]]:
    """Serve the live page during a mirror that runs once.

    Yields:
        The context of the run, and what the page has to learn of it.
    """
    if command.arguments.http is not None and command.arguments.dry_run:
        raise UsageError(
            "--http shows what is copied, and --dry-run copies nothing",
            remedy="omit one of them",
        )
    with open_page(command) as page:
        if command.arguments.http is None:
            yield command, page
            return
        from concil.service.service_status import RunKind, RunResult  # noqa: PLC0415

        arguments, display = command.arguments, page.observe(command.display)
        page.begin_run(RunKind.PLAN)
        result, detail = RunResult.FAILED, ""
        with logs.log_to_display(display, verbose=arguments.verbose, quiet=arguments.quiet):
            try:
                yield replace(command, display=display), page
                result = RunResult.DONE
            except Cancelled:
                result = RunResult.INTERRUPTED
                raise
            except ConcilError as error:
                detail = describe_error(error)
                raise
            finally:
                page.end_run(result, detail)


def _destination_text(arguments: argparse.Namespace) -> str:
    """Return the destination for display; several are separated by commas."""
    given = arguments.dest or arguments.destination or ""
    return ", ".join(map(without_user, [given] if isinstance(given, str) else given))


def describe_failure(error: ConcilError) -> tuple[str, str]:
    """Return what failed, and the remedy, each in one line."""
    return single_line(error.summary), single_line(replace_parameters(error.remedy))


class _ObservedDisplay:
    """A display whose events and messages the live page gets as well. Thread-safe."""

    def __init__(self, display: Display, live: LiveMirror) -> None:
        self._display = display
        self._live = live

    def __call__(self, event: Event) -> None:
        """Show an event."""
        self._display(event)
        self._live.record_event(event)

    @property
    def lists_images(self) -> bool:
        """Whether each image that has ended has a line."""
        return self._display.lists_images

    def set_expected_images(self, images: int | None, *, lists_images: bool = True) -> None:
        """Set the number of images of a mirror."""
        self._display.set_expected_images(images, lists_images=lists_images)
        self._live.set_expected_images(images)

    def snapshot(self) -> ProgressSnapshot | None:
        """Return the totals; None if there were no events."""
        return self._display.snapshot()

    def show_stopping(self, stopping: Stopping) -> None:
        """Show that the command is about to end."""
        self._display.show_stopping(stopping)

    def write(self, line: str, level: str = "") -> None:
        """Show a line of text."""
        self._display.write(line, level)
        self._live.record_message(level, line)

    def close(self) -> None:
        """Stop showing progress."""
        self._display.close()
