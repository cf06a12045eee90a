"""Writes the files of `--report`: JSON and HTML."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from concil.cli.plan_arguments import destination_arguments
from concil.errors import ConcilError, StoreError, UsageError
from concil.fs.atomic_file import AtomicTextFile
from concil.plan.registry_rules import display_name
from concil.plan.report_schema import MIRROR_VERB
from concil.report.json_report import JSONReport
from concil.report.timeline import Timeline
from concil.transfer.mirror.prune import PruneResult
from concil.transfer.mirror.report import Outcome

_HTML_SUFFIXES = (".html", ".htm")


def is_html(path: Path) -> bool:
    """Return whether a report is an HTML page; any other suffix means JSON."""
    return path.suffix.lower() in _HTML_SUFFIXES


class Reports:
    """All reports of one mirror; they are written when the ``with`` block ends.

    A report that cannot be written is dropped, and its error kept in ``errors``: the
    mirror matters more than its report.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        timeline: Timeline | None,
        title: str,
        verb: str = MIRROR_VERB,
    ) -> None:
        """Start the reports.

        Args:
            verb: that is reported on: `mirror` or `check`.
            timeline: source of the HTML pages; None if there are none.
            title: title of the pages.
        Raises:
            StoreError: a path cannot be written to.
            UsageError: two reports have the same path.
        """
        for n, path in enumerate(paths):
            if path.absolute() in [other.absolute() for other in paths[:n]]:
                raise UsageError(
                    f"two reports have the same path: {path}", remedy="omit one of them"
                )
        self._timeline = timeline
        self._title = title
        self.errors: list[ConcilError] = []
        self.has_ended_early = False  # the mirror ended before all images were tried
        self._documents: list[JSONReport] = []
        self._pages: list[AtomicTextFile] = []
        try:
            for path in paths:
                if is_html(path):
                    self._pages.append(AtomicTextFile(path))
                else:
                    self._documents.append(JSONReport(path, verb))
        except ConcilError:
            self._discard_all()
            raise

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the reports."""
        self._finish(complete=error is None and not self.has_ended_early)

    def add(self, outcome: Outcome) -> None:
        """Add an outcome to the JSON reports; pages are made from progress events."""
        self._write_documents(lambda document: document.add(outcome))

    def add_listing_failure(self, source: str, error: ConcilError) -> None:
        """Record that the tags of a repository could not be listed completely."""
        self._write_documents(lambda document: document.add_listing_failure(source, error))
        if self._timeline is not None:
            self._timeline.add_failure(display_name(source), str(error))

    def add_pruned(self, pruned: PruneResult, *, dry_run: bool) -> None:
        """Record the deleted tags of a repository, and the failed ones."""
        self._write_documents(lambda document: document.add_pruned(pruned, dry_run=dry_run))
        if self._timeline is not None and pruned.error is not None:
            self._timeline.add_failure(pruned.name, str(pruned.error))

    def close_incomplete(self) -> None:
        """Finish the reports while the mirror runs: the program is about to exit."""
        self._finish(complete=False)

    def _write_documents(self, write: Callable[[JSONReport], None]) -> None:
        for document in tuple(self._documents):
            try:
                write(document)
            except StoreError as error:
                self._documents.remove(document)
                document.discard()
                self.errors.append(error)

    def _finish(self, *, complete: bool) -> None:
        """Finish every report, even if some of them fail."""
        self._write_documents(lambda document: document.close(complete=complete))
        for page in self._pages:
            try:
                self._write_page(page, complete=complete)
            except StoreError as error:
                self.errors.append(error)

    def _write_page(self, file: AtomicTextFile, *, complete: bool) -> None:
        if self._timeline is not None:
            with file:
                file.write(self._timeline.page(title=self._title, complete=complete))

    def _discard_all(self) -> None:
        for page in self._pages:
            page.abort()
        for document in self._documents:
            document.discard()


def report_title(arguments: argparse.Namespace) -> str:
    """Return the title of the pages, without passwords."""
    what = "Check" if arguments.verb == "check" else "Mirror"
    plan = "standard input" if arguments.plan == "-" else Path(arguments.plan).name
    destinations = destination_arguments(arguments)
    if not destinations:
        return f"{what} of {plan}"
    destination = ", ".join(
        each if each.startswith("oci:") else each.rpartition("@")[2] for each in destinations
    )
    return f"{what} of {plan} {'in' if what == 'Check' else 'to'} {destination}"
