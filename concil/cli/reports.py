"""The files of `--report`: JSON for programs, and a page for people."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from concil.errors import ConcilError, StoreError, UsageError
from concil.plan.registries import named
from concil.report import JSONReport
from concil.report_file import ReportFile
from concil.timeline import Timeline
from concil.transfer.mirror import Outcome
from concil.transfer.prune import Pruned

_PAGES = (".html", ".htm")


def is_page(path: Path) -> bool:
    """Whether a report is the page; by the suffix, and JSON is whatever has another."""
    return path.suffix.lower() in _PAGES


class Reports:
    """All reports of one mirror; they appear when the ``with`` ends, however it ends.

    One that cannot be written while the mirror runs is given up, and why is in ``errors``:
    what the mirror does is worth more than what is told of it.
    """

    def __init__(self, paths: Sequence[Path], timeline: Timeline | None, title: str) -> None:
        """Begin them.

        Args:
            timeline: what the page is made from; None where none is asked for.
            title: of the page.
        Raises:
            StoreError: one of the places cannot be written to.
            UsageError: two reports would have one place.
        """
        for n, path in enumerate(paths):
            if path.absolute() in [other.absolute() for other in paths[:n]]:
                raise UsageError(f"two reports go to {path}", remedy="leave one of them away")
        self._timeline = timeline
        self._title = title
        self.errors: list[ConcilError] = []
        self.cut_short = False  # the mirror has ended before it came to all images
        self._documents: list[JSONReport] = []
        self._pages: list[ReportFile] = []
        try:
            for path in paths:
                if is_page(path):
                    self._pages.append(ReportFile(path))
                else:
                    self._documents.append(JSONReport(path))
        except ConcilError:
            self._discard()
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
        """Finish them."""
        self._finish(complete=error is None and not self.cut_short)

    def add(self, outcome: Outcome) -> None:
        """Write down what became of an image; the page knows from its events."""
        self._put(lambda document: document.add(outcome))

    def add_unlisted(self, source: str, error: ConcilError) -> None:
        """Write down that the tags of a repository could not be had, or not all."""
        self._put(lambda document: document.add_unlisted(source, error))
        if self._timeline is not None:
            self._timeline.add_failure(named(source), str(error))

    def add_pruned(self, pruned: Pruned, *, dry_run: bool) -> None:
        """Write down what was deleted in a repository, and what could not be."""
        self._put(lambda document: document.add_pruned(pruned, dry_run=dry_run))
        if self._timeline is not None and pruned.error is not None:
            self._timeline.add_failure(pruned.name, str(pruned.error))

    def abandon(self) -> None:
        """Finish them while the mirror still runs: the program is about to end."""
        self._finish(complete=False)

    def _put(self, write: Callable[[JSONReport], None]) -> None:
        for document in tuple(self._documents):
            try:
                write(document)
            except StoreError as error:
                self._documents.remove(document)
                document.discard()
                self.errors.append(error)

    def _finish(self, *, complete: bool) -> None:
        """Finish every one, also behind one that cannot be."""
        self._put(lambda document: document.close(complete=complete))
        for page in self._pages:
            try:
                self._write_page(page, complete=complete)
            except StoreError as error:
                self.errors.append(error)

    def _write_page(self, file: ReportFile, *, complete: bool) -> None:
        if self._timeline is not None:
            with file:
                file.write(self._timeline.page(title=self._title, complete=complete))

    def _discard(self) -> None:
        for page in self._pages:
            page.discard()
        for document in self._documents:
            document.discard()


def title_of(arguments: argparse.Namespace) -> str:
    """What runs, without a password of the destination."""
    plan = "standard input" if arguments.plan == "-" else Path(arguments.plan).name
    destination: str | None = arguments.dest or arguments.destination
    if destination is None:
        return f"Mirror of {plan}"
    if not destination.startswith("oci:"):
        destination = destination.rpartition("@")[2]
    return f"Mirror of {plan} to {destination}"
