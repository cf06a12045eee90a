"""`concil transfers`: what was interrupted and can be gone on with, and how to drop it."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from concil.bars import sized
from concil.cli import options, results
from concil.cli.command import Command
from concil.cli.failures import DONE, FAILED
from concil.errors import ConcilError, NotFound, UsageError
from concil.reference import Reference
from concil.registry.upload import UploadSession
from concil.store.files import FileIdentity, LocalFile
from concil.stores import Stores
from concil.transfer.journal import Journal, Unfinished

if TYPE_CHECKING:
    from concil.cli.options import Subparsers

_AGE = re.compile(r"([0-9]{1,6})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "transfers",
        help="list or forget interrupted transfers",
        description="List what was interrupted and goes on when the same command runs again.",
    )
    parser.set_defaults(work=run_list)
    actions = parser.add_subparsers(metavar="ACTION")
    listing = actions.add_parser("list", help="list them (as without an action)")
    listing.set_defaults(work=run_list)
    forget = actions.add_parser(
        "forget",
        help="drop some: the next run begins anew",
        description="Drop interrupted transfers: upload sessions are cancelled where the "
        "registry lets us, partial files are removed.",
    )
    forget.add_argument("number", metavar="ID", type=int, nargs="*", help="as listed")
    forget.add_argument("--all", action="store_true", help="every one that is not under way")
    forget.add_argument("--older-than", metavar="AGE", help="those untouched for 7d, 12h, 30m")
    options.add_registry(forget)
    forget.set_defaults(work=run_forget)


def run_list(command: Command) -> int:
    """Print them, the newest first."""
    with _journal() as journal:
        found = [one for one in journal.unfinished() if one.is_partial]
        if not journal.usable:
            return FAILED  # the warning says why; it is not known that there is nothing
    if not found:
        command.tell("nothing was interrupted")
        return DONE
    rows = [("ID", "DONE", "OF", "AGE", "WHAT", "WHERE TO"), *map(_row, found)]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        results.put_line("  ".join([*cells, row[5]]))
    return DONE


def run_forget(command: Command) -> int:
    """Drop those that were asked for."""
    arguments = command.arguments
    asked = bool(arguments.number) + bool(arguments.all) + bool(arguments.older_than)
    if asked != 1:
        raise UsageError("which transfers?", remedy="write their IDs, or --all, or --older-than 7d")
    with _journal() as journal, command.stores() as stores:
        forgotten = 0
        for one in _chosen(command, journal.unfinished()):
            # Since it was listed another process may have gone on with it.
            if journal.take(one.number):
                _drop(one, stores, command)
                journal.forget(one.number)
                forgotten += 1
        if not journal.usable:
            return FAILED
    command.tell(f"forgot {forgotten} transfer{'s' * (forgotten != 1)}")
    return DONE


@contextlib.contextmanager
def _journal() -> Iterator[Journal]:
    with contextlib.closing(Journal(Journal.default_path())) as journal:
        yield journal


def _row(one: Unfinished) -> tuple[str, ...]:
    age = "under way" if one.running else _age(time.time() - one.updated)
    share = f"{sized(one.state.offset)} ({100 * one.state.offset // max(1, one.size)} %)"
    return (str(one.number), share, sized(one.size), age, _what(one), one.target)


def _what(one: Unfinished) -> str:
    """A digest as it is; of a file's identity the path; and whether it cannot be gone on with."""
    path = FileIdentity.path_in(one.subject)
    if path is None:
        gone = not _is_session(one) and not Path(one.state.location).exists()
        return one.subject + " (partial file gone)" * gone
    try:
        changed = LocalFile(path).identity.text != one.subject
    except ConcilError:
        return f"{path} (gone)"
    return f"{path} (changed since)" if changed else path


def _is_session(one: Unfinished) -> bool:
    """Whether a registry has it rather than the disk."""
    return one.state.location.startswith(("http://", "https://"))


def _age(seconds: float) -> str:
    for unit in ("w", "d", "h", "m"):
        if seconds >= 2 * _SECONDS[unit]:
            return f"{int(seconds // _SECONDS[unit])}{unit}"
    return f"{max(0, int(seconds))}s"


def _chosen(command: Command, found: list[Unfinished]) -> list[Unfinished]:
    """Those that were asked for.

    Raises:
        NotFound: there is none of a number.
        UsageError: one of a number is under way, or an age makes no sense.
    """
    arguments = command.arguments
    if arguments.number:
        by_number = {one.number: one for one in found}
        for number in arguments.number:
            if number not in by_number:
                raise NotFound(f"no transfer has the ID {number}", remedy="see: concil transfers")
            if by_number[number].running:
                raise UsageError(
                    f"transfer {number} is under way in another process", remedy="end that first"
                )
        return [by_number[number] for number in dict.fromkeys(arguments.number)]
    least = 0.0
    if arguments.older_than:
        age = _AGE.fullmatch(arguments.older_than)
        if age is None:
            raise UsageError(f"not an age: {arguments.older_than!a}", remedy="write 7d or 12h")
        least = int(age[1]) * _SECONDS[age[2]]
    now = time.time()
    return [one for one in found if not one.running and now - one.updated >= least]


def _drop(one: Unfinished, stores: Stores, command: Command) -> None:
    """Cancel the session or remove the partial file; neither is worth a failure."""
    if not _is_session(one):
        partial = Path(one.state.location)
        # The journal may be damaged: nothing but a partial file is ever removed.
        if ".partial" in partial.name and partial.is_file() and not partial.is_symlink():
            partial.unlink(missing_ok=True)
        return
    with contextlib.suppress(ConcilError):
        access = options.access_of(command.arguments)
        store = stores.repository(Reference.parse(one.target), access)
        UploadSession(store.client, one.state.location).cancel()
