"""Answers as they are shown: JSON, plain text, tables on a terminal."""

from __future__ import annotations

import io
import json
import re
import sys

import pytest

from hueyctl.cli.answer import Answer, Facts, Line, Lines, Raw, Table
from hueyctl.cli.render import Screen, report
from hueyctl.cli.words import count, rate, size
from hueyctl.errors import ConfigError, NotFound, Refused, RunFailed

EVIL = "\x1b[31m[red]x[/red]"


class Terminal(io.TextIOWrapper):
    """A stdout that says it is a terminal, or not, and remembers what was written."""

    def __init__(self, *, is_terminal: bool) -> None:
        self.written = io.BytesIO()
        self._is_terminal = is_terminal
        super().__init__(self.written, encoding="utf-8")

    def isatty(self) -> bool:
        return self._is_terminal


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm-256color")
    return Terminal(is_terminal=True)


@pytest.fixture
def pipe() -> Terminal:
    return Terminal(is_terminal=False)


TABLE = Table(("run", "state", "reason"), [("3f2a", "failed", EVIL), ("77", "succeeded", "")], "newest runs")


def test_plain_text_is_aligned_under_a_header_and_harmless(pipe: Terminal) -> None:
    assert Screen(pipe, as_json=False).show(Answer(blocks=[TABLE])) == 0
    assert pipe.written.getvalue().decode().splitlines() == [
        "newest runs",
        "RUN   STATE      REASON",
        r"3f2a  failed     \x1b[31m[red]x[/red]",
        "77    succeeded",
    ]


def test_plain_text_needs_no_rich(pipe: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert Screen(pipe, as_json=False).show(Answer(blocks=[TABLE, Facts([("a", "b")]), Lines(["c"]), Line("d")])) == 0


def test_a_table_on_a_terminal_shows_markup_as_text_and_sends_no_sequence_of_a_users(terminal: Terminal) -> None:
    Screen(terminal, as_json=False).show(Answer(blocks=[TABLE]))
    shown = terminal.written.getvalue().decode()
    assert r"\x1b[31m[red]x[/red]" in shown
    assert "\x1b[31mfailed " in shown, "the state is coloured by us"
    assert "\x1b[31m[red]" not in shown
    assert max(map(len, (line for line in shown.splitlines() if "\x1b" not in line)), default=0) <= 60


ROW = ("919e8249", "a-long-name-of-a-job", "succeeded", "2026-11-23T02:34:21.646667Z", "not JSON, " * 30 + "and so on")


RUNS = Table(("run", "job", "state", "started", "reason"), [ROW, ("1", "b", "failed", "", "")])


def drawn(terminal: Terminal, table: Table = RUNS) -> list[str]:
    """All that was drawn on it, this table last."""
    Screen(terminal, as_json=False).show(Answer(blocks=[table]))
    return re.sub(r"\x1b\[[0-9;]*m", "", terminal.written.getvalue().decode()).splitlines()


@pytest.mark.parametrize("columns", [84, 100, 400])
def test_a_table_that_is_too_wide_cuts_its_texts_and_never_an_id_a_time_or_a_state(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    header, first, second = drawn(terminal)
    assert header.split() == ["RUN", "JOB", "STATE", "STARTED", "REASON"]
    assert first.split()[:4] == list(ROW[:4])
    assert second.rstrip() == "1         b                     failed"
    assert first.index("  not JSON") == header.index("  REASON")
    assert (ROW[4] in first, "…" in first) == (columns == 400, columns < 400)
    assert len(first) <= columns


@pytest.mark.parametrize("columns", [1, 20, 60, 83])
def test_where_there_is_no_room_for_the_last_column_its_texts_have_lines_of_their_own(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    header, first, reason, second = drawn(terminal)
    assert header.split() == ["RUN", "JOB", "STATE", "STARTED"]
    assert first.split() == list(ROW[:4])
    assert second.split() == ["1", "b", "failed"]
    assert reason.startswith("  not JSON, "[: columns - 1])
    assert reason.endswith("…")
    assert len(reason) <= max(columns, 3)


def test_what_is_usual_in_every_row_goes_where_the_table_is_too_wide(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = ("schedule", "queue", "priority", "pipeline", "next", "state")
    rows = [("nightly", "default", "0", "", "2026-11-30T01:30:00Z", "on"), ("hourly", "default", "5", "", "", "off")]
    monkeypatch.setenv("COLUMNS", "100")
    header, *_ = drawn(terminal, Table(columns, rows))
    assert header.split() == [column.upper() for column in columns]
    monkeypatch.setenv("COLUMNS", "45")
    _, _, _, header, nightly, hourly, off = drawn(terminal, Table(columns, rows))
    assert header.split() == ["SCHEDULE", "PRIORITY", "NEXT"]
    assert nightly.split() == ["nightly", "0", "2026-11-30T01:30:00Z"]
    assert (hourly.split(), off) == (["hourly", "5"], "  off")


def test_texts_that_are_too_wide_together_share_what_room_there_is(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    Screen(terminal, as_json=False).show(
        Answer(blocks=[Table(("params", "description"), [("param " * 90, "words " * 90)])])
    )
    *_, row = re.sub(r"\x1b\[[0-9;]*m", "", terminal.written.getvalue().decode()).splitlines()
    assert row.count("…") == 2
    assert row.index("words") == 31


def test_no_color_is_respected(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    Screen(terminal, as_json=False).show(Answer(blocks=[TABLE]))
    assert b"\x1b[3" not in terminal.written.getvalue()


def test_bytes_of_a_job_go_into_a_pipe_as_they_are(pipe: Terminal) -> None:
    data = b"\x1b[31m\xff\x00\r\n no newline"
    Screen(pipe, as_json=False).show(Answer(blocks=[Raw(data)]))
    assert pipe.written.getvalue() == data


def test_bytes_of_a_job_are_made_harmless_for_a_terminal(terminal: Terminal) -> None:
    def pieces() -> object:
        yield Answer(blocks=[Raw(b"\x1b[2J Zo" + "ë".encode()[:1], "out")])
        yield Answer(blocks=[Raw("ë".encode()[1:] + b" \xff", "out")])

    Screen(terminal, as_json=False).show(pieces())
    assert terminal.written.getvalue().decode() == "\\x1b[2J Zoë \ufffd\n"


def test_what_two_streams_wrote_is_not_run_together_on_a_terminal(terminal: Terminal) -> None:
    Screen(terminal, as_json=False).show(Answer(blocks=[Raw(b"no newline", "out"), Raw(b"error\n", "err")]))
    assert terminal.written.getvalue() == b"no newline\nerror\n"


def test_json_is_one_document_a_line_and_carries_its_schema(pipe: Terminal) -> None:
    Screen(pipe, as_json=True).show(
        Answer(documents=[{"runs": []}, {"runs": [1]}], blocks=[Line("never")], notes=["never"])
    )
    assert pipe.written.getvalue() == b'{"schema":1,"runs":[]}\n{"schema":1,"runs":[1]}\n'


@pytest.mark.parametrize("as_json", [False, True])
def test_content_is_shown_as_it_is_whatever_was_asked_for(pipe: Terminal, as_json: bool) -> None:
    Screen(pipe, as_json=as_json).show(Answer(content=b'{\n  "type": "object"\n}\n'))
    assert pipe.written.getvalue() == b'{\n  "type": "object"\n}\n'


def test_an_error_beside_an_answer_gives_its_exit_code(pipe: Terminal, capfd: pytest.CaptureFixture[str]) -> None:
    answers = [Answer(blocks=[Line("a")], errors=[Refused("no")]), Answer(blocks=[Line("b")])]
    assert Screen(pipe, as_json=False).show(answers) == 1
    assert pipe.written.getvalue() == b"a\nb\n"


def test_an_answer_that_can_t_be_written_is_an_error() -> None:
    full = open("/dev/full", "w", encoding="utf-8")  # noqa: SIM115 (closing it fails too)
    with pytest.raises(Refused, match="could not be written"):
        Screen(full, as_json=False).show(Answer(blocks=[Line("x")]))
    for many, hint in ((3, "it was: 0 1 2"), (11, None)):  # of more, some would look like all
        with pytest.raises(Refused) as refused:
            Screen(full, as_json=False).show(Answer(blocks=[Lines([str(number) for number in range(many)])]))
        assert refused.value.hint == hint
    with pytest.raises(OSError):
        full.close()


def test_errors_say_what_is_wrong_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    report(NotFound(f"no run {EVIL}", hint="look"), as_json=False)
    report(ConfigError(["jobs.toml: a", "jobs.toml: b"]), as_json=False)
    report(RunFailed("run 1 failed: x", hint="hueyctl logs 1"), as_json=False)
    assert capsys.readouterr().err.splitlines() == [
        r"hueyctl: no run \x1b[31m[red]x[/red]",
        "hint: look",
        "jobs.toml: a",
        "jobs.toml: b",
        "hueyctl: run 1 failed: x; hueyctl logs 1",
    ]


def test_errors_in_json_are_this(capsys: pytest.CaptureFixture[str]) -> None:
    report(NotFound("no run", hint="look"), as_json=True)
    assert json.loads(capsys.readouterr().err) == {
        "schema": 1,
        "error": {"code": "not-found", "message": "no run", "hint": "look"},
    }


@pytest.mark.parametrize(("number", "shown"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (10 << 20, "10 MiB")])
def test_sizes_are_short(number: int, shown: str) -> None:
    assert size(number) == shown


def test_counts_are_english() -> None:
    assert [count(1, "run"), count(2, "run")] == ["1 run", "2 runs"]


@pytest.mark.parametrize(
    ("per_hour", "shown"),
    [(0, "0/d"), (0.02, "0.5/d"), (1, "1/h"), (59, "59/h"), (90, "1.5/min"), (3600, "1/s"), (5_400_000, "1,500/s")],
)
def test_rates_are_in_a_unit_that_one_happens_in(per_hour: float, shown: str) -> None:
    assert rate(per_hour) == shown
