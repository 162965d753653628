"""Tables: drawn on a terminal, and aligned but uncut in a pipe."""

import sys
from collections.abc import Collection, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from backend.cli.session import say


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, wrapped: Collection[int], nothing: str
) -> None:
    """Print rows under their columns, of which those at the positions `wrapped` may be folded; `nothing` if empty."""
    if not rows:
        say(nothing)
        return
    if not sys.stdout.isatty():  # uncut, whatever the width
        widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
        for row in (columns, *rows):
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for position, name in enumerate(columns):
        table.add_column(name, overflow="fold", no_wrap=position not in wrapped)
    for row in rows:
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)
