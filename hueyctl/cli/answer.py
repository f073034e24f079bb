"""What a command has to say, before anybody knows how it will be shown."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

import msgspec

from hueyctl.errors import HueyctlError


class Line(msgspec.Struct, frozen=True):
    """One line of text."""

    text: str


class Lines(msgspec.Struct, frozen=True):
    """Many lines of text."""

    texts: Sequence[str]
    title: str | None = None


class Table(msgspec.Struct, frozen=True):
    """Rows under named columns; a column called `state` is coloured on a terminal."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    title: str | None = None


class Facts(msgspec.Struct, frozen=True):
    """Names and values, one pair a line."""

    pairs: Sequence[tuple[str, str]]
    title: str | None = None


class Raw(msgspec.Struct, frozen=True):
    """Bytes that a job wrote: written as they are into a file or a pipe, made harmless for a terminal.

    Pieces of one `source` are one text.
    """

    data: bytes
    source: str = ""


Block = Line | Lines | Table | Facts | Raw


class Answer(msgspec.Struct, kw_only=True):
    """What a command has to say: `documents` where JSON was asked for, `blocks` otherwise, both for stdout.

    `content` is a whole file in a format of its own, of ours alone: it goes to stdout as it is, whatever was asked for.

    `notes` are said on stderr, but not beside JSON, and so are `remarks`, lines about a file that begin with its
    name; `errors` always are said, and decide the exit code where it is 0.
    """

    content: bytes = b""
    documents: Sequence[dict[str, Any]] = ()
    blocks: Sequence[Block] = ()
    remarks: Sequence[str] = ()
    notes: Sequence[str] = ()
    errors: Sequence[HueyctlError] = ()
    exit_code: int = 0


class View(msgspec.Struct, frozen=True):
    """One answer that changes: on a terminal each of its `frames` takes the place of the one before it, for as long as
    somebody looks; elsewhere, and as JSON, the first is all.

    `frames` is called with descriptors; when there is something to be read from one, it gives the next frame at once.
    """

    frames: Callable[[Sequence[int]], Generator[Answer]]


Answers = Answer | Iterable[Answer] | View
"""Some commands have one answer, others give one after the other as things happen, or one that changes."""
