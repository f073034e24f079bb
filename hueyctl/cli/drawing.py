"""Tables on a terminal, drawn by rich in the width that there is.

Texts that don't fit are cut with an ellipsis; what is one word (an id, a time, a name) stays whole. Where that leaves
no room for the last column, the text that it has stands on a line of its own; and where the rest is still too wide,
columns go that say nothing but what is usual.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterable, Sequence
from typing import TextIO

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


# What goes without saying, by column; as nothing does, in each.
_USUAL = {("QUEUE", "default"), ("PRIORITY", "0"), ("STATE", "on")}
_GAP = "  "
_SHORTEST_TEXT = 12
_LONGEST_WORD = 36  # a whole id


def drawn(table: Table) -> str:
    """The lines of this table, with the colours of its states."""
    room = shutil.get_terminal_size().columns
    columns = _telling(_columns(table), room)
    widths = _widths(columns, room)
    # Drawn into memory: the screen writes it in one piece with everything else.
    screen = io.StringIO()
    console = console_on(screen)
    console.width = max(room, _whole(widths))
    if table.title:
        console.print(Text(table.title, style="bold"))
    console.print(_grid(columns, widths))
    lines = [line.rstrip() for line in screen.getvalue().splitlines()]
    if len(widths) < len(columns):
        first = len(lines) - len(table.rows)
        for number, text in enumerate(columns[-1][1:], first):
            usual = _is_usual(columns[-1][0], text)
            lines[number] += "" if usual else f"\n{_GAP}{_cut(text, room - len(_GAP))}"
    return "".join(f"{line}\n" for line in lines)


def grid(table: Table, room: int) -> Drawing:
    """The table, for a screen of that width which cuts lines: no text of it has a line of its own."""
    columns = _columns(table)
    return _grid(columns, _fitted([max(map(cell_len, cells)) for cells in columns], map(_least, columns), room))


def console_on(file: TextIO) -> Console:
    """A terminal to draw on, in colour unless the environment says no."""
    no_color = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    return Console(file=file, force_terminal=True, highlight=False, no_color=no_color)


def _columns(table: Table) -> list[Sequence[str]]:
    """Each column with its name, harmless."""
    rows = [[one_line(cell) for cell in row] for row in table.rows]
    return [(name.upper(), *cells) for name, *cells in zip(table.columns, *rows, strict=True)]


def _telling(columns: list[Sequence[str]], room: int) -> list[Sequence[str]]:
    """These columns; where they are too wide, without the first ones that say nothing but what is usual."""
    dull = [cells for cells in columns[1:-1] if all(_is_usual(cells[0], cell) for cell in cells[1:])]
    for cells in dull:
        if _whole(_widths(columns, room)) <= room:
            break
        columns = [each for each in columns if each is not cells]
    return columns


def _is_usual(column: str, cell: str) -> bool:
    return not cell or (column, cell) in _USUAL


def _grid(columns: Sequence[Sequence[str]], widths: Sequence[int]) -> Drawing:
    """As many of these columns as there are widths for."""
    # With a width of its own it isn't squeezed into less, words and all.
    width = _whole(widths)
    drawing = Drawing(box=None, padding=(0, len(_GAP), 0, 0), pad_edge=False, header_style="bold", width=width)
    for (name, *_), width in zip(columns, widths, strict=False):
        drawing.add_column(Text(name), no_wrap=True, overflow="ellipsis", width=width)
    for row in zip(*(cells[1:] for cells in columns[: len(widths)]), strict=True):
        drawing.add_row(*(_cell(cells[0], cell) for cells, cell in zip(columns, row, strict=False)))
    return drawing


def _whole(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _widths(columns: Sequence[Sequence[str]], room: int) -> list[int]:
    """How wide each column is; without the last one where there is no room for it."""
    natural = [max(map(cell_len, cells)) for cells in columns]
    least = [_least(cells) for cells in columns]
    last = max(cell_len(columns[-1][0]), _SHORTEST_TEXT)
    widths = _fitted(natural, [*least[:-1], last], room)
    if len(widths) == 1 or _whole(widths) <= room:
        return widths
    return _fitted(natural[:-1], least[:-1], room)


def _least(cells: Sequence[str]) -> int:
    """How narrow a column may become: what is one word is of no use when it is cut."""
    words = [cell_len(cell) for cell in cells if " " not in cell]
    return max(_SHORTEST_TEXT, min(_LONGEST_WORD, max(words, default=0)))


def _fitted(widths: Sequence[int], least: Iterable[int], room: int) -> list[int]:
    """These widths, cut at the highest level at which they and their gaps fit into `room`; but none below its least."""
    least = list(least)
    room -= len(_GAP) * (len(widths) - 1)
    for level in range(room, 0, -1):
        fitted = [min(width, max(floor, level)) for width, floor in zip(widths, least, strict=True)]
        if sum(fitted) <= room:
            return fitted
    return [min(pair) for pair in zip(widths, least, strict=True)]


def _cut(text: str, room: int) -> str:
    return text if cell_len(text) <= room else set_cell_size(text, max(room - 1, 0)) + "…"


def _cell(column: str, value: str) -> Text:
    return Text(value, style=_STATE_STYLES.get(value, "") if column == "STATE" else "")
