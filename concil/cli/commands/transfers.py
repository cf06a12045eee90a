"""`concil transfers`: lists and discards resumable transfers."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path

from concil.cli.context import CommandContext
from concil.cli.open_stores import open_store_factory
from concil.cli.options import settings
from concil.cli.output import results
from concil.cli.output.errors import DONE, FAILED
from concil.engine.store_factory import StoreFactory
from concil.errors import ConcilError, NotFound, UsageError
from concil.fs.local_file import FileIdentity, LocalFile
from concil.oci.reference import Reference
from concil.registry.upload_session import UploadSession
from concil.runtime.quantities import count_of, format_size
from concil.transfer.journal import Journal, UnfinishedTransfer

_AGE = re.compile(r"([0-9]{1,6})([smhdw])")
_SECONDS_BY_UNIT = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def run_list(command: CommandContext) -> int:
    """Print the interrupted transfers, newest first."""
    with _open_journal() as journal:
        transfers = [transfer for transfer in journal.list_unfinished() if transfer.is_partial]
        if not journal.is_usable:
            return FAILED  # the journal has logged why; an empty list would be misleading
    if not transfers:
        command.print_message("there are no interrupted transfers")
        return DONE
    rows = [("ID", "DONE", "SIZE", "AGE", "BLOB", "DESTINATION"), *map(_format_row, transfers)]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        results.print_line("  ".join([*cells, row[5]]))
    return DONE


def run_forget(command: CommandContext) -> int:
    """Discard the selected transfers."""
    arguments = command.arguments
    selector_count = bool(arguments.number) + bool(arguments.all) + bool(arguments.older_than)
    if selector_count != 1:
        raise UsageError(
            "no transfers are chosen", remedy="give their IDs, or --all, or --older-than 7d"
        )
    with _open_journal() as journal, open_store_factory(command) as stores:
        forgotten = 0
        for transfer in _select_transfers(command, journal.list_unfinished()):
            # Another process may have resumed it since it was listed.
            if journal.claim(transfer.row_id):
                _discard_transfer(transfer, stores, command)
                journal.delete(transfer.row_id)
                forgotten += 1
        if not journal.is_usable:
            return FAILED
    command.print_message(f"discarded {count_of(forgotten, 'transfer')}")
    return DONE


@contextlib.contextmanager
def _open_journal() -> Iterator[Journal]:
    with contextlib.closing(Journal(Journal.default_path())) as journal:
        yield journal


def _format_row(transfer: UnfinishedTransfer) -> tuple[str, ...]:
    age = "running" if transfer.is_running else _format_age(time.time() - transfer.updated)
    share = (
        f"{format_size(transfer.state.offset)} "
        f"({100 * transfer.state.offset // max(1, transfer.size)} %)"
    )
    return (
        str(transfer.row_id),
        share,
        format_size(transfer.size),
        age,
        _describe_subject(transfer),
        transfer.destination,
    )


def _describe_subject(transfer: UnfinishedTransfer) -> str:
    """Return the digest or the file's path, and a note if the transfer cannot be resumed."""
    path = FileIdentity.parse_path(transfer.subject)
    if path is None:
        is_gone = not _is_upload_session(transfer) and not Path(transfer.state.location).exists()
        return transfer.subject + " (partial file missing)" * is_gone
    try:
        has_changed = LocalFile(path).identity.to_text != transfer.subject
    except ConcilError:
        return f"{path} (missing)"
    return f"{path} (changed)" if has_changed else path


def _is_upload_session(transfer: UnfinishedTransfer) -> bool:
    """Return whether the transfer is an upload session, and not a partial file."""
    return transfer.state.location.startswith(("http://", "https://"))


def _format_age(seconds: float) -> str:
    for unit in ("w", "d", "h", "m"):
        if seconds >= 2 * _SECONDS_BY_UNIT[unit]:
            return f"{int(seconds // _SECONDS_BY_UNIT[unit])}{unit}"
    return f"{max(0, int(seconds))}s"


def _select_transfers(
    command: CommandContext, transfers: list[UnfinishedTransfer]
) -> list[UnfinishedTransfer]:
    """Return the transfers that the options select.

    Raises:
        NotFound: no transfer has a given ID.
        UsageError: a selected transfer is running, or the age is invalid.
    """
    arguments = command.arguments
    if arguments.number:
        by_number = {transfer.row_id: transfer for transfer in transfers}
        for number in arguments.number:
            if number not in by_number:
                raise NotFound(
                    f"there is no transfer with the ID {number}", remedy="see: concil transfers"
                )
            if by_number[number].is_running:
                raise UsageError(
                    f"transfer {number} is running in another process",
                    remedy="end that process first",
                )
        return [by_number[number] for number in dict.fromkeys(arguments.number)]
    min_age = 0.0
    if arguments.older_than:
        age = _AGE.fullmatch(arguments.older_than)
        if age is None:
            raise UsageError(
                f"not an age: {arguments.older_than!a}",
                remedy="write a number and a unit: 7d, 12h or 30m",
            )
        min_age = int(age[1]) * _SECONDS_BY_UNIT[age[2]]
    now = time.time()
    return [
        transfer
        for transfer in transfers
        if not transfer.is_running and now - transfer.updated >= min_age
    ]


def _discard_transfer(
    transfer: UnfinishedTransfer, store_factory: StoreFactory, command: CommandContext
) -> None:
    """Cancel the upload session or remove the partial file; errors are ignored."""
    if not _is_upload_session(transfer):
        partial = Path(transfer.state.location)
        # The journal may be damaged: never remove anything but a partial file.
        if ".partial" in partial.name and partial.is_file() and not partial.is_symlink():
            partial.unlink(missing_ok=True)
        return
    with contextlib.suppress(ConcilError):
        options = settings.build_endpoint_options(command.arguments)
        store = store_factory.open_repository(Reference.parse(transfer.destination), options)
        UploadSession(store.client, transfer.state.location).cancel()
