"""What is told of the runs of a mirror while and after they run: metrics."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from concil.cli.context import CommandContext
from concil.cli.output.errors import DONE
from concil.errors import Cancelled, ConcilError, UsageError
from concil.plan.rule import ParsedPlan, Rule
from concil.progress.events import ProgressSink, tee
from concil.progress.request_observer import RequestObserver, TeeObserver
from concil.runtime.dataclass import dataclass
from concil.transfer.mirror.report import Outcome

if TYPE_CHECKING:  # imported when they are asked for
    from concil.metrics.collector import MetricsCollector
    from concil.service.plan_state import PlanState


@dataclass(slots=True)
class Monitoring:
    """The metrics of all runs of a command; without any, it does nothing."""

    collector: MetricsCollector | None = None
    state: PlanState | None = None
    _observers: list[RequestObserver] = field(default_factory=list)

    def progress_observer(self, *others: ProgressSink | None) -> ProgressSink | None:
        """Return a sink for the events of an engine, which passes them on to ``others``, too."""
        sinks = [sink for sink in (*others, self.collector) if sink is not None]
        return tee(*sinks) if len(sinks) > 1 else next(iter(sinks), None)

    @property
    def request_observer(self) -> RequestObserver | None:
        """What is told of the requests of an engine."""
        observers = [self.collector] if self.collector is not None else []
        return TeeObserver(*observers) if len(observers) > 1 else next(iter(observers), None)

    def record_outcome(self, outcome: Outcome) -> None:
        """Record an image of the run."""
        if self.collector is not None:
            self.collector.record_outcome(outcome)

    def record_listing_failures(self, failures: Iterable[tuple[Rule, ConcilError]]) -> None:
        """Record the entries of the plan that could not be listed."""
        for rule, _ in failures:
            if self.collector is not None:
                self.collector.record_listing_failure(rule.source)

    def watch(self, plan: ParsedPlan, run: Callable[[], int], *, is_complete: bool = True) -> int:
        """Run a mirror, and record its beginning and end; return its exit code.

        Args:
            is_complete: it is a run of the whole plan; False: of images that failed.
        """
        if self.collector is not None:
            self.collector.begin_run(plan.rules, is_complete=is_complete)
        result = "failed"
        try:
            code = run()
            result = "success" if code == DONE else "partial"
            return code
        except Cancelled:
            result = "cancelled"
            raise
        finally:
            self._end_run(result, is_complete=is_complete)

    def _end_run(self, result: str, *, is_complete: bool) -> None:
        if self.collector is not None:
            self.collector.end_run(result, is_complete=is_complete)
            if self.state is not None:
                self.state.last_success = self.collector.last_success()
        if self.state is not None:
            self.state.save()


@contextlib.contextmanager
def open_monitoring(
    command: CommandContext, *, needs_metrics: bool = False
) -> Iterator[Monitoring]:
    """Provide what the options of the command ask for.

    Args:
        needs_metrics: collect them even without ``--metrics``.
    Raises:
        UsageError: prometheus-client is not installed, or the options contradict each other.
    """
    arguments = command.arguments
    if arguments.metrics is None and not needs_metrics:
        yield Monitoring()
        return
    if arguments.dry_run:
        raise UsageError(
            "--dry-run copies nothing, and there is nothing to measure", remedy="omit --metrics"
        )
    from concil.metrics.collector import MetricsCollector  # noqa: PLC0415  # seldom asked for
    from concil.metrics.metrics_file import MetricsFile  # noqa: PLC0415

    with contextlib.ExitStack() as stack:
        collector = MetricsCollector(count_resumable=_resumable_counter(stack))
        collector.render()  # raises if the library is missing
        monitoring = Monitoring(collector, _load_state(command))
        if monitoring.state is not None:
            collector.restore(monitoring.state.last_success)
        if arguments.metrics is not None:
            stack.enter_context(MetricsFile(Path(arguments.metrics), collector))
        yield monitoring


def _load_state(command: CommandContext) -> PlanState | None:
    """Return what earlier runs of the plan have stored; None: it has no name."""
    from concil.service.plan_state import PlanState  # noqa: PLC0415
    from concil.service.run_lock import plan_name  # noqa: PLC0415
    from concil.transfer.journal import Journal  # noqa: PLC0415

    arguments = command.arguments
    if arguments.plan == "-":
        return None
    name = plan_name(arguments.plan, arguments.dest or arguments.destination or "")
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
