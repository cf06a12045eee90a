"""The metrics, notifications and traces of the runs of a mirror."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from concil.cli.context import CommandContext
from concil.cli.output.errors import DONE
from concil.cli.output.mirror_page import MirrorPage
from concil.cli.plan_arguments import destination_arguments
from concil.cli.traces import open_traces
from concil.errors import Cancelled, ConcilError, UsageError
from concil.plan.rule import ParsedPlan, Rule
from concil.progress.events import ProgressSink, tee
from concil.progress.request_observer import RequestObserver, TeeObserver
from concil.runtime.dataclass import dataclass
from concil.transfer.mirror.report import Outcome

if TYPE_CHECKING:  # imported when they are asked for
    from concil.metrics.collector import MetricsCollector
    from concil.metrics.metrics_file import MetricsFile
    from concil.notify.notifier import Notifier
    from concil.service.plan_state import PlanState
    from concil.tracing.span_recorder import SpanRecorder

_SHUTDOWN_TIMEOUT = 1.0  # seconds for notifications after SIGTERM or Ctrl-C


@dataclass(slots=True)
class Monitoring:
    """Metrics, notifications and traces of all runs of a command; without any, it does nothing."""

    collector: MetricsCollector | None = None
    notifier: Notifier | None = None
    metrics_file: MetricsFile | None = None
    traces: SpanRecorder | None = None
    state: PlanState | None = None
    page: MirrorPage = field(default_factory=lambda: MirrorPage(None))
    ends_early: bool = False  # a run with a failure has not tried all images

    def progress_observer(self, *others: ProgressSink | None) -> ProgressSink | None:
        """Return a sink for the events of an engine, which passes them on to ``others``, too."""
        sinks = [sink for sink in (*others, self.collector, self.traces) if sink is not None]
        return tee(*sinks) if len(sinks) > 1 else next(iter(sinks), None)

    @property
    def request_observer(self) -> RequestObserver | None:
        """Receives the requests of an engine; None: nobody is interested."""
        both: tuple[RequestObserver | None, ...] = (self.collector, self.traces)
        observers = [observer for observer in both if observer is not None]
        if self.notifier is not None and self.notifier.is_active:
            observers.append(self.notifier)
        return TeeObserver(*observers) if len(observers) > 1 else next(iter(observers), None)

    @property
    def render_metrics(self) -> Callable[[], bytes] | None:
        """Renders the metrics; None: there are none."""
        return None if self.collector is None else self.collector.render

    def record_outcome(self, outcome: Outcome) -> None:
        """Record an image of the run."""
        self.page.record_outcome(outcome)
        for observer in (self.collector, self.notifier):
            if observer is not None:
                observer.record_outcome(outcome)

    def record_listing_failures(self, failures: Iterable[tuple[Rule, ConcilError]]) -> None:
        """Record the entries of the plan that could not be listed."""
        for rule, error in failures:
            self.page.record_failed_listing(rule.source, error)
            if self.collector is not None:
                self.collector.record_listing_failure(rule.source)
            if self.notifier is not None:
                self.notifier.record_listing_failure(rule, error)

    def watch(self, plan: ParsedPlan, run: Callable[[], int], *, is_complete: bool = True) -> int:
        """Run a mirror, and record its beginning and end; return its exit code.

        Args:
            is_complete: it is a run of the whole plan; False: of images that failed.
        """
        if self.collector is not None:
            self.collector.begin_run(plan.rules, is_complete=is_complete)
        if self.notifier is not None:
            self.notifier.begin_run(plan.notify)
        result = "failed"
        try:
            code = run()
            if code == DONE or not self.ends_early:
                result = "success" if code == DONE else "partial"
            return code
        except Cancelled:
            result = "cancelled"
            raise
        except ConcilError as error:
            if self.notifier is not None:
                self.notifier.record_run_error(error)
            raise
        finally:
            self._end_run(result, is_complete=is_complete)

    def _end_run(self, result: str, *, is_complete: bool) -> None:
        if self.collector is not None:
            self.collector.end_run(result, is_complete=is_complete)
            if self.state is not None:
                self.state.last_success = self.collector.last_success()
        if self.metrics_file is not None:
            self.metrics_file.write_soon()
        if self.notifier is not None:
            has_ended = result in ("success", "partial")
            self.notifier.end_run(has_ended=has_ended, is_complete=is_complete)
        is_notified = self.notifier is not None and self.notifier.is_active
        if self.state is not None and (is_notified or self.collector is not None):
            self.state.save()

    def record_notification(self, event: str, is_delivered: bool) -> None:  # noqa: FBT001 - a callback
        """Record that a notification was delivered, or that it was given up."""
        if self.collector is not None:
            self.collector.record_notification(event, is_delivered=is_delivered)
        if self.state is not None:
            self.state.save()


@contextlib.contextmanager
def open_monitoring(command: CommandContext, plan: ParsedPlan) -> Iterator[Monitoring]:
    """Provide what the options of the command and the plan ask for.

    Args:
        plan: as it is when the command begins.
    Raises:
        UsageError: prometheus-client is not installed, the options contradict each other, or the
            secret of a webhook is missing.
    """
    arguments = command.arguments
    if arguments.dry_run and arguments.metrics is not None:
        raise UsageError(
            "--dry-run copies nothing, and there is nothing to measure", remedy="omit --metrics"
        )
    # The live page has metrics if the library is there.
    has_metrics = arguments.metrics is not None or (
        arguments.http is not None and find_spec("prometheus_client") is not None
    )
    # A service may read a plan with [notify] later.
    has_notifier = plan.notify is not None or bool(arguments.every or arguments.cron)
    monitoring = Monitoring(ends_early=arguments.fail_fast)
    with contextlib.ExitStack() as stack:
        if (has_metrics or has_notifier) and not arguments.dry_run:
            monitoring.state = _load_state(command)
        if has_metrics:
            _open_metrics(command, monitoring, stack)
        if has_notifier and not arguments.dry_run:
            monitoring.notifier = _create_notifier(command, plan, monitoring, stack)
        monitoring.traces = stack.enter_context(open_traces(command))
        yield monitoring


def _open_metrics(
    command: CommandContext, monitoring: Monitoring, stack: contextlib.ExitStack
) -> None:
    from concil.metrics.collector import MetricsCollector  # noqa: PLC0415  # seldom asked for
    from concil.metrics.metrics_file import MetricsFile  # noqa: PLC0415

    collector = MetricsCollector(count_resumable=_resumable_counter(stack))
    collector.render()  # raises if the library is missing
    if monitoring.state is not None:
        collector.restore(monitoring.state.last_success)
    monitoring.collector = collector
    if command.arguments.metrics is not None:
        file = MetricsFile(Path(command.arguments.metrics), collector)
        monitoring.metrics_file = stack.enter_context(file)


def _create_notifier(
    command: CommandContext,
    plan: ParsedPlan,
    monitoring: Monitoring,
    stack: contextlib.ExitStack,
) -> Notifier:
    from concil.notify.delivery import Delivery  # noqa: PLC0415  # seldom asked for
    from concil.notify.notifier import Notifier  # noqa: PLC0415

    arguments = command.arguments
    check_notify(plan)
    notifier = Notifier(
        Delivery(),
        {} if monitoring.state is None else monitoring.state.notified,
        plan="standard input" if arguments.plan == "-" else Path(arguments.plan).name,
        destinations=destination_arguments(arguments),
        on_end=monitoring.record_notification,
    )
    timeout = 0.0 if plan.notify is None else plan.notify.timeout

    def close() -> None:
        is_stopping = command.shutdown.event.is_set() or timeout == 0.0
        notifier.close(_SHUTDOWN_TIMEOUT if is_stopping else timeout)

    stack.callback(close)
    return notifier


def check_notify(plan: ParsedPlan) -> None:
    """Check the secret of a plan's webhook.

    Raises:
        UsageError: it is missing, or cannot be read.
    """
    if plan.notify is not None:
        from concil.notify.channels import load_secret  # noqa: PLC0415  # seldom asked for

        load_secret(plan.notify, os.environ)


def _load_state(command: CommandContext) -> PlanState | None:
    """Return what earlier runs of the plan have stored; None: it has no name."""
    from concil.service.plan_state import PlanState  # noqa: PLC0415
    from concil.service.run_lock import plan_name  # noqa: PLC0415
    from concil.transfer.journal import Journal  # noqa: PLC0415

    arguments = command.arguments
    if arguments.plan == "-":
        return None
    name = plan_name(arguments.plan, " ".join(destination_arguments(arguments)))
    path = Journal.default_path().with_name(f"{name}.json")
    with contextlib.suppress(OSError):  # `PlanState.save` says so
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return PlanState.load(path)


def _resumable_counter(stack: contextlib.ExitStack) -> Callable[[], int]:
    """Return a function that counts the transfers that can be resumed."""
    from concil.transfer.journal import Journal  # noqa: PLC0415

    journal = Journal(Journal.default_path())
    stack.callback(journal.close)
    return lambda: sum(not transfer.is_running for transfer in journal.list_unfinished())
