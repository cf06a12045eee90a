"""`concil mirror --every` and `--cron`: runs a plan again and again until it is stopped."""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import logging
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime

from concil.cli.commands import mirror
from concil.cli.context import GRACE_PERIOD, CommandContext, Shutdown
from concil.cli.execution import progress_mode
from concil.cli.monitoring import Monitoring, check_notify, open_monitoring
from concil.cli.options import settings
from concil.cli.output import logs
from concil.cli.output.errors import DONE, describe_error
from concil.cli.output.mirror_page import MirrorPage, open_page
from concil.cli.plan_arguments import check_plan, destination_arguments
from concil.display.display import open_display
from concil.errors import Cancelled, ConcilError, UsageError
from concil.plan.retry_failed import FailedImages
from concil.plan.rule import ParsedPlan
from concil.runtime.malloc import limit_malloc_arenas
from concil.runtime.quantities import count_of
from concil.service.plan_file import PlanFile
from concil.service.retry_queue import FailedImageQueue
from concil.service.run_lock import plan_lock
from concil.service.run_times import Schedule, create_schedule
from concil.service.service_status import RunKind, RunResult
from concil.transfer.journal import Journal
from concil.transfer.mirror.report import Outcome

logger = logging.getLogger(__name__)

_POLL_INTERVAL = 2.0  # seconds between looks at the plan and the clock


def run(command: CommandContext) -> int:
    """Run the mirror by its schedule; return after SIGTERM or Ctrl-C."""
    arguments = command.arguments
    _check_arguments(arguments)
    limit_malloc_arenas()
    settings.may_overwrite(arguments)
    schedule = create_schedule(arguments.every, arguments.cron, arguments.jitter)
    plan_file = PlanFile(arguments.plan, functools.partial(_check_rules, arguments))
    with open_monitoring(command, plan_file.plan) as monitoring:
        service = _Service(command, schedule, plan_file, monitoring)
        with open_page(command, service.request_run, monitoring.render_metrics) as page:
            monitoring.page = page
            service.run(page)
    command.print_message(f"concil: stopped after {count_of(service.run_count, 'run')}")
    return DONE


class _Service:
    """A mirror that runs by a schedule."""

    def __init__(
        self,
        command: CommandContext,
        schedule: Schedule,
        plan_file: PlanFile,
        monitoring: Monitoring,
    ) -> None:
        self._command = command
        self._schedule = schedule
        self._plan_file = plan_file
        self._monitoring = monitoring
        self._failures = FailedImageQueue()
        self._wake = threading.Event()  # set by signals
        self._has_to_reload = False  # SIGHUP was received
        self._has_to_run = False  # a run was requested
        self._is_running_plan = False
        self._page = MirrorPage(None)
        self._current: Shutdown | None = None  # of the run that is under way
        self.run_count = 0
        command.shutdown.grace_period = GRACE_PERIOD
        command.shutdown.on_hangup = self._hang_up
        command.shutdown.add_callback(self._stop)
        command.shutdown.add_exit_callback(self._run_exit_callbacks)

    def run(self, page: MirrorPage) -> None:
        """Run until a signal ends the command.

        Args:
            page: learns what happens.
        """
        self._page = page
        self._schedule.plan_next()
        while self._wait():
            if self._has_to_run or self._schedule.seconds_left() <= 0:
                self._has_to_run = False
                began = time.monotonic()
                self._schedule.plan_next()
                page.record_schedule(self._schedule.seconds_left())
                self._is_running_plan = True
                self._run_plan(None)
                self._is_running_plan = False
                self._announce_next(time.monotonic() - began)
            else:
                self._run_plan(self._failures.take_due())

    @property
    def _is_stopping(self) -> bool:
        return self._command.shutdown.event.is_set()

    def request_run(self) -> bool:
        """Let a run of the whole plan begin now, or after a retry; thread-safe.

        Returns:
            False if one goes on, or the service ends.
        """
        if self._is_running_plan or self._is_stopping:
            return False
        self._has_to_run = True
        self._wake.set()
        return True

    def _hang_up(self) -> None:
        self._has_to_reload = True
        self._wake.set()

    def _stop(self) -> None:
        self._wake.set()
        self._page.stop()
        if self._current is not None:
            self._current.request()

    def _run_exit_callbacks(self) -> None:
        if self._current is not None:
            self._current.run_exit_callbacks()

    def _wait(self) -> bool:
        """Wait until a run or retry is due; return False if the command ends instead."""
        while not self._is_stopping:
            self._wake.clear()
            is_forced, self._has_to_reload = self._has_to_reload, False
            self._plan_file.reload(is_forced=is_forced)
            self._page.record_plan_problem(self._plan_file.problem)
            retry = self._failures.seconds_left()
            left = self._schedule.seconds_left()
            self._page.record_turn(left, retry)
            left = left if retry is None else min(left, retry)
            if left <= 0 or self._has_to_run:
                return True
            self._wake.wait(min(left, _POLL_INTERVAL))
        return False

    def _run_plan(self, failed: FailedImages | None) -> None:
        """Mirror the plan, or images of it that failed; an error does not end the service."""
        kind = RunKind.PLAN if failed is None else RunKind.RETRY
        with contextlib.ExitStack() as stack:
            if not self._lock_plan(stack):
                self._page.leave_out_run(kind)
                return
            self._page.begin_run(kind)
            result, detail = RunResult.FAILED, ""
            stack.callback(lambda: self._page.end_run(result, detail))
            round_command = self._create_round(failed, stack)
            outcomes: list[Outcome] = []
            has_ended = False

            def note(outcome: Outcome) -> None:
                if outcome.error is not None or failed is not None:
                    outcomes.append(outcome)

            try:
                plan = self._plan_file.plan
                run = functools.partial(
                    mirror.run_once, round_command, plan, self._monitoring, failed, note
                )
                self._monitoring.watch(plan, run, is_complete=failed is None)
                has_ended, result = True, RunResult.DONE
            except Cancelled:
                if not self._is_stopping:
                    raise
                result = RunResult.INTERRUPTED
            except ConcilError as error:
                detail = describe_error(error)
                round_command.display.close()
                round_command.display.write(f"concil: {detail}", "error")
            self._failures.record(
                outcomes,
                is_complete=has_ended and failed is None,
                tried=failed if has_ended else None,
            )
            self.run_count += failed is None
        # Errors form cycles with the frames that they came from, which would pile up: memory
        # after hundreds of runs is that after a few.
        gc.collect()

    def _lock_plan(self, stack: contextlib.ExitStack) -> bool:
        """Lock the plan until ``stack`` ends; return False, and say why, if that fails."""
        arguments = self._command.arguments
        destination = " ".join(destination_arguments(arguments))
        try:
            lock = plan_lock(Journal.default_path(), arguments.plan, destination)
            is_locked = lock.acquire(0, self._command.shutdown.event)
        except (OSError, ConcilError) as error:
            logger.error("this run is left out: %s", describe_error(error))  # noqa: TRY400
            return False
        if is_locked:
            stack.callback(lock.release)
        else:
            logger.warning("another process mirrors this plan: this run is left out")
        return is_locked

    def _create_round(
        self, failed: FailedImages | None, stack: contextlib.ExitStack
    ) -> CommandContext:
        """Return the context of one run, which ends with ``stack``."""
        arguments = argparse.Namespace(**vars(self._command.arguments))
        if failed is not None:
            arguments.report = []  # those of the last run of the whole plan stay
        display = self._page.observe(open_display(progress_mode(arguments), sys.stderr))
        stack.callback(display.close)
        stack.enter_context(
            logs.log_to_display(display, verbose=arguments.verbose, quiet=arguments.quiet)
        )
        self._current = Shutdown()
        if self._is_stopping:  # since the last look at it
            self._current.request()
        return CommandContext(arguments, display, self._current)

    def _announce_next(self, seconds: float) -> None:
        """Print when the next run begins."""
        left = self._schedule.seconds_left()
        if self._is_stopping:
            return
        if left <= 0:
            logger.warning(
                "the run took %.0f s, longer than the schedule allows; the next one begins at once",
                seconds,
            )
            return
        when = datetime.fromtimestamp(time.time() + left).astimezone()
        failed = f", {count_of(len(self._failures), 'failed image')} before" * bool(self._failures)
        self._command.print_message(f"concil: next run at {when:%Y-%m-%d %H:%M:%S}{failed}")


def _check_rules(arguments: argparse.Namespace, plan: ParsedPlan) -> None:
    """Check a plan as far as possible without a request.

    Raises:
        UsageError: it has no images, or an invalid entry.
    """
    expansion = mirror.create_expansion(arguments, plan.rules, _list_nothing, _list_nothing)
    check_plan(arguments, expansion)
    check_notify(plan)


def _list_nothing(_repository: str) -> Iterator[str]:
    return iter(())


def _check_arguments(arguments: argparse.Namespace) -> None:
    """Refuse options that make no sense for a service."""
    if arguments.plan == "-":
        raise UsageError(
            "a service reads its plan again, and standard input can be read only once",
            remedy="give a file",
        )
    for option in ("dry_run", "retry_failed", "fail_fast"):
        if getattr(arguments, option):
            name = option.replace("_", "-")
            raise UsageError(
                f"--{name} is for a single run",
                remedy=f"omit --{name}, or --every and --cron",
            )
