"""Prints how copied images differ from their sources."""

from __future__ import annotations

from concil.cli.context import CommandContext
from concil.cli.output.errors import single_line
from concil.progress.events import State
from concil.transfer.image.result import ImageResult


def print_notes(context: CommandContext, result: ImageResult) -> None:
    """Print in one line how a copied image differs from its source."""
    if result.notes and result.state is State.DONE:
        context.print_message(
            single_line(f"concil: note: {result.destination}: {'; '.join(result.notes)}")
        )
