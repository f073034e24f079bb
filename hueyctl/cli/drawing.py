"""Tables on a terminal, drawn by rich in the width that there is.

Texts that don't fit are cut with an ellipsis; what is one word (an id, a time, a name) stays whole. Where that leaves
no room for the last column, the text that it has stands on a line of its own.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table as Drawing
from rich.text import Text

from hueyctl.cli.answer import Table
from hueyctl.cli.harmless import one_line

_STATE_STYLES = {
    "running": "cyan",
    "succeeded": "green",
    "failed": "red",
    "revoked": "yellow",
    "expired": "yellow",
    "held": "magenta",
    "alive": "green",
    "silent": "yellow",
    "dead": "red",
    "ok": "green",
    "warning": "yellow",
    "problem": "red",
}


_GAP = "  "
_SHORTEST_TEXT = 12
_LONGEST_WORD = 36  # a whole id


def drawn(table: Table) -> str:
    """The lines of this table, with the colours of its states."""
    room = shutil.get_terminal_size().columns
    rows = [[one_line(cell) for cell in row] for row in table.rows]
    columns = [(name.upper(), *cells) for name, *cells in zip(table.columns, *rows, strict=True)]
    widths = _widths(columns, room)
    drawing = Drawing(box=None, padding=(0, len(_GAP), 0, 0), pad_edge=False, header_style="bold")
    for name, width in zip(table.columns, widths, strict=False):
        drawing.add_column(Text(name.upper()), no_wrap=True, overflow="ellipsis", width=width)
    for row in rows:
        drawing.add_row(*map(_cell, table.columns[: len(widths)], row))
    # Drawn into memory: the screen writes it in one piece with everything else.
    screen = io.StringIO()
    no_color = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    width = max(room, sum(widths) + len(_GAP) * len(widths))
    console = Console(file=screen, force_terminal=True, width=width, highlight=False, no_color=no_color)
    if table.title:
        console.print(Text(table.title, style="bold"))
    console.print(drawing)
    lines = [line.rstrip() for line in screen.getvalue().splitlines()]
    if len(widths) < len(columns):
        first = len(lines) - len(rows)
        for number, row in enumerate(rows, first):
            lines[number] += f"\n{_GAP}{_cut(row[-1], room - len(_GAP))}" if row[-1] else ""
    return "".join(f"{line}\n" for line in lines)


def _widths(columns: Sequence[Sequence[str]], room: int) -> list[int]:
    """How wide each column is; without the last one where there is no room for it."""
    natural = [max(map(cell_len, cells)) for cells in columns]
    least = [_least(cells) for cells in columns]
    last = max(cell_len(columns[-1][0]), _SHORTEST_TEXT)
    widths = _fitted(natural, [*least[:-1], last], room)
    if len(widths) == 1 or sum(widths) + len(_GAP) * (len(widths) - 1) <= room:
        return widths
    return _fitted(natural[:-1], least[:-1], room)


def _least(cells: Sequence[str]) -> int:
    """How narrow a column may become: what is one word is of no use when it is cut."""
    words = [cell_len(cell) for cell in cells if " " not in cell]
    return max(_SHORTEST_TEXT, min(_LONGEST_WORD, max(words, default=0)))


def _fitted(widths: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """These widths, cut at the highest level at which they and their gaps fit into `room`; but none below its least."""
    room -= len(_GAP) * (len(widths) - 1)
    for level in range(room, 0, -1):
        fitted = [min(width, max(floor, level)) for width, floor in zip(widths, least, strict=True)]
        if sum(fitted) <= room:
            return fitted
    return [min(pair) for pair in zip(widths, least, strict=True)]


def _cut(text: str, room: int) -> str:
    return text if cell_len(text) <= room else set_cell_size(text, max(room - 1, 0)) + "…"


def _cell(column: str, value: str) -> Text:
    return Text(value, style=_STATE_STYLES.get(value, "") if column == "state" else "")
