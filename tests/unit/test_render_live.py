"""What is drawn on a whole terminal: as much as fits, and nothing that a user wrote does anything there."""

from __future__ import annotations

import io
import re
from collections.abc import Generator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.screen import Screen as WholeScreen

from hueyctl.cli.answer import Answer, Line, Table, View
from hueyctl.cli.live import fitted, shares
from hueyctl.cli.render import Screen

EVIL = (
    "\x1b[2J[red]x[/red]\u202e\t漢字漢字漢字 and a text that goes on and on and on, further than any terminal is wide"
)
RUNS = Table(("run", "job", "reason"), [(f"{number:08}", "fetch", EVIL) for number in range(20)], "failures")
QUEUES = Table(("queue", "queued"), [("default", "7"), (EVIL, "1")], "queues")
ANSWER = Answer(blocks=[Line(f"now {EVIL}"), QUEUES, RUNS], notes=[EVIL] * 9)


def drawn(answer: Answer, width: int, height: int) -> list[str]:
    """The lines of the screen, as they are sent, without our own colours."""
    sent = io.StringIO()
    console = Console(file=sent, force_terminal=True, width=width, height=height, highlight=False)
    console.print(WholeScreen(fitted(answer, width, height)), end="")
    return re.sub(r"\x1b\[[0-9;]*m", "", sent.getvalue()).split("\n")


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 23), (200, 60), (40, 10), (20, 5), (3, 2), (1, 1)])
def test_it_fills_the_screen_to_the_cell_and_says_nothing_raw(width: int, height: int) -> None:
    lines = drawn(ANSWER, width, height)
    assert [cell_len(line) for line in lines] == [width] * height
    assert not re.search("[\x00-\x1f\u202e]", "".join(lines))
    if width >= 80:
        assert r"\x1b[2J[red]x[/red]\u202e" in lines[0]


def test_titles_stand_in_the_header_and_say_what_is_cut() -> None:
    lines = [line.rstrip() for line in drawn(ANSWER, 80, 24)]
    assert lines[4:6] == ["", "QUEUES" + " " * (len(lines[5]) - len("QUEUESQUEUED")) + "QUEUED"]
    assert lines[8] == ""
    assert re.fullmatch(r"FAILURES 14/20 +JOB +REASON", lines[9])
    assert all(line.endswith("…") for line in lines[10:])
    assert not any("wide" in line for line in lines), "it is cut"


def test_ids_are_cut_by_the_edge_alone() -> None:
    """A narrow terminal shows the first columns whole, and not all of them in shreds."""
    lines = drawn(Answer(blocks=[Line("now"), RUNS]), 24, 10)
    assert lines[2].startswith("00000000")
    assert "fetch" in lines[2]


@given(st.lists(st.integers(0, 50), max_size=6), st.integers(-5, 100))
def test_shares_leave_no_room_that_somebody_wants_and_favour_nobody(wanted: list[int], room: int) -> None:
    got = shares(wanted, room)
    assert all(0 <= share <= want for share, want in zip(got, wanted, strict=True))
    assert sum(got) == max(0, min(room, sum(wanted)))
    cut = [share for share, want in zip(got, wanted, strict=True) if share < want]
    assert not cut or max(got) <= min(cut) + 1


class Pipe(io.TextIOWrapper):
    """A stdout that is no terminal, or is one that can't move its cursor."""

    def __init__(self, *, is_terminal: bool = False) -> None:
        self.written = io.BytesIO()
        self._is_terminal = is_terminal
        super().__init__(self.written, encoding="utf-8")

    def isatty(self) -> bool:
        return self._is_terminal


@pytest.mark.parametrize(("is_terminal", "as_json"), [(False, False), (False, True), (True, True), (True, False)])
def test_elsewhere_the_first_frame_is_all(monkeypatch: pytest.MonkeyPatch, is_terminal: bool, as_json: bool) -> None:
    monkeypatch.setenv("TERM", "dumb")
    left: list[bool] = []

    def frames(wake: Sequence[int]) -> Generator[Answer]:
        assert not wake
        try:
            for number in range(9):
                yield Answer(documents=[{"number": number}], blocks=[Line(str(number))])
        finally:
            left.append(True)

    pipe = Pipe(is_terminal=is_terminal)
    assert Screen(pipe, as_json=as_json).show(View(frames)) == 0
    assert pipe.written.getvalue() == (b'{"schema":1,"number":0}\n' if as_json else b"0\n")
    assert left == [True]
