"""The one place that writes: answers as JSON, as plain text, or as tables where stdout is a terminal.

Nothing that users or jobs wrote reaches a terminal raw; rich is imported only where a table is drawn.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any, BinaryIO, TextIO

import msgspec

from hueyctl.app.public import SCHEMA
from hueyctl.cli.answer import Answer, Answers, Block, Facts, Line, Lines, Raw, Table, View
from hueyctl.cli.harmless import Decoder, json_text, one_line
from hueyctl.errors import ConfigError, HueyctlError, Refused, RunFailed

_SAID_MAX = 10  # of an answer that can't be written, so many lines go into the error


class Screen:
    """Where answers are shown: `stdout`, and stderr for what is said beside them."""

    def __init__(self, stdout: TextIO, *, as_json: bool) -> None:
        self._as_json = as_json
        self._stdout = stdout
        self._out: BinaryIO = stdout.buffer
        self.is_terminal = stdout.isatty()
        self._decoders: dict[str, Decoder] = {}
        self._source = ""
        self._at_line_start = True

    def show(self, answers: Answers) -> int:
        """Show each answer as it comes, or a view until it is left; returns the exit code. What was shown is out when
        the next one is asked for.

        Raises:
            BrokenPipeError: nobody reads any more.
            Refused: stdout can't be written.
        """
        if isinstance(answers, View):
            if self.is_terminal and not self._as_json and os.environ.get("TERM") != "dumb":
                from hueyctl.cli.live import live  # loads rich

                live(answers, self._stdout)
                return 0
            with closing(answers.frames(())) as frames:
                answers = next(frames)
        exit_code = 0
        each = iter((answers,)) if isinstance(answers, Answer) else iter(answers)
        try:
            for answer in each:
                self._show(answer)
                exit_code = answer.exit_code or next((error.exit_code for error in answer.errors), 0) or exit_code
            self._finish_raw()
        finally:
            if isinstance(each, Generator):
                each.close()  # what it listens to is let go, even if nobody reads us any more
        return exit_code

    def _show(self, answer: Answer) -> None:
        try:
            self._write(answer)
            self._out.flush()
        except BrokenPipeError:
            raise
        except OSError as exc:
            # Who enqueues must not be left without the id: he would do it again.
            raise Refused(f"the answer could not be written: {exc.strerror}", hint=_in_short(answer)) from exc
        if not self._as_json:
            for remark in answer.remarks:
                _to_stderr(f"{one_line(remark)}\n")
            for note in answer.notes:
                say(note)
        for error in answer.errors:
            report(error, as_json=self._as_json)

    def _write(self, answer: Answer) -> None:
        self._out.write(answer.content)
        if self._as_json:
            for document in answer.documents:
                self._out.write(encode({"schema": SCHEMA, **document}))
            return
        for index, block in enumerate(answer.blocks):
            if index and isinstance(block, Table | Facts | Lines) and block.title:
                self._out.write(b"\n")
            if isinstance(block, Raw):
                self._raw(block)
            elif isinstance(block, Table) and self.is_terminal:
                from hueyctl.cli.drawing import drawn  # loads rich

                self._out.write(drawn(block).encode(errors="backslashreplace"))
            else:
                self._out.write(_plain(block).encode(errors="backslashreplace"))

    def _raw(self, block: Raw) -> None:
        if not self.is_terminal:
            self._out.write(block.data)
            return
        if block.source != self._source:
            self._end_line()
            self._source = block.source
        self._text(self._decoders.setdefault(block.source, Decoder()).feed(block.data))

    def _finish_raw(self) -> None:
        """Show what decoders hold back, and leave the prompt a line of its own."""
        for decoder in self._decoders.values():
            self._text(decoder.feed(b"", last=True))
        self._end_line()
        self._out.flush()

    def _text(self, text: str) -> None:
        if text:
            self._at_line_start = text.endswith("\n")
            self._out.write(text.encode())

    def _end_line(self) -> None:
        if not self._at_line_start:
            self._text("\n")


def _in_short(answer: Answer) -> str | None:
    """What it would have said, where that is a few lines."""
    said = [each.text for each in answer.blocks if isinstance(each, Line)]
    said += [text for each in answer.blocks if isinstance(each, Lines) for text in each.texts[: _SAID_MAX + 1]]
    return f"it was: {' '.join(said)}" if 0 < len(said) <= _SAID_MAX else None


def encode(document: dict[str, Any]) -> bytes:
    """One line of JSON that can be shown anywhere."""
    try:
        text = msgspec.json.encode(document).decode()
    except UnicodeEncodeError:
        # A path or an argument that isn't UTF-8 reaches Python as lone surrogates, which JSON can't hold.
        text = msgspec.json.encode(_without_surrogates(document)).decode()
    return json_text(text).encode() + b"\n"


def say(note: str) -> None:
    """A message on stderr, one line."""
    _to_stderr(f"hueyctl: {one_line(note)}\n")


def report(error: HueyctlError, *, as_json: bool) -> None:
    """An error on stderr: for people what is wrong and what to do, or one JSON document."""
    if as_json:
        described: dict[str, Any] = {"code": error.code, "message": error.message, "hint": error.hint}
        if isinstance(error, ConfigError):
            described["problems"] = list(error.problems)
        _to_stderr(encode({"schema": SCHEMA, "error": described}).decode())
        return
    if isinstance(error, ConfigError):
        text = "".join(f"{one_line(problem)}\n" for problem in error.problems)
    elif isinstance(error, RunFailed) and error.hint:
        _to_stderr(f"hueyctl: {one_line(error.message)}; {one_line(error.hint)}\n")  # one line for each failed run
        return
    else:
        text = f"hueyctl: {one_line(error.message)}\n"
    _to_stderr(text + (f"hint: {one_line(error.hint)}\n" if error.hint else ""))


def warn(error: ConfigError, going_on: str, *, as_json: bool) -> None:
    """What is wrong with the file, where a command goes on all the same: one line, or one JSON document."""
    more = len(error.problems) - 1
    others = f" (and {more} more)" if more else ""
    text = f"{error.problems[0]}{others}; {going_on}: see `hueyctl check`"
    if as_json:
        described = {"code": error.code, "message": text, "problems": list(error.problems)}
        _to_stderr(encode({"schema": SCHEMA, "warning": described}).decode())
    else:
        _to_stderr(f"{one_line(text)}\n")


def _to_stderr(text: str) -> None:
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, AttributeError, ValueError):
        return  # a closed stderr: there is nobody to tell, and the exit code still says it


def _plain(block: Block) -> str:
    match block:
        case Line(text):
            return one_line(text) + "\n"
        case Lines(texts, title):
            lines = [one_line(text) for text in texts]
        case Table(columns, rows, title):
            lines = _aligned([[column.upper() for column in columns], *rows])
        case Facts(pairs, title):
            lines = _aligned([[f"{name}:", value] for name, value in pairs])
        case _:
            raise TypeError(f"not a text block: {type(block).__name__}")
    return "".join(f"{line}\n" for line in ([one_line(title), *lines] if title else lines))


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def _without_surrogates(value: Any) -> Any:
    match value:
        case str():
            return value.encode(errors="backslashreplace").decode()
        case dict():
            return {key: _without_surrogates(item) for key, item in value.items()}
        case list() | tuple():
            return [_without_surrogates(item) for item in value]
        case _:
            return value
