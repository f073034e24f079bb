"""What a worker says while it works: one line per thing that happened, as text or JSON, on stderr.

A line never breaks, carries no control characters, and never stops the worker: where stderr is gone or full, lines
are dropped, since the event log has it all.
"""

from __future__ import annotations

import json
import logging
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, TextIO

from hueyctl.model.outcome import Stopped, describe
from hueyctl.model.transition import Done, Release, Retry, Settlement

if TYPE_CHECKING:
    from hueyctl.engine.attempt import Attempt

_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


class WorkerLog:
    """The log of one worker."""

    def __init__(self, form: Literal["text", "json"] = "text", stream: TextIO | None = None) -> None:
        self._form = form
        self._stream = stream or sys.stderr
        self._held: deque[str] = deque()

    def info(self, message: str, **facts: object) -> None:
        """Something that is as it should be."""
        self._write("info", message, facts)

    def warning(self, message: str, **facts: object) -> None:
        """Something that an operator may want to look at."""
        self._write("warning", message, facts)

    def error(self, message: str, **facts: object) -> None:
        """Something that an operator must look at."""
        self._write("error", message, facts)

    def settled(self, endings: Sequence[tuple[Attempt, Settlement]]) -> None:
        """The ends of attempts, a line each. Written with whatever comes next, or by `flush`: thousands a second come
        in batches."""
        if endings:
            now = _now()
            self._held.extend([self._line(now, *_ending(attempt, settlement)) for attempt, settlement in endings])

    def flush(self) -> None:
        """Write what is held."""
        held = []
        with suppress(IndexError):  # several threads may be here: each line is one's
            while True:
                held.append(self._held.popleft())
        if held:
            self._put("".join(held))

    def _write(self, level: str, message: str, facts: dict[str, object]) -> None:
        self.flush()
        self._put(self._line(_now(), level, message, facts))

    def _line(self, time: str, level: str, message: str, facts: dict[str, object]) -> str:
        if self._form == "json":
            return json.dumps({"time": time, "level": level, "message": message, **facts}, default=str) + "\n"
        return f"{time} {level:7} {message if message.isprintable() else message.translate(_ESCAPES)}\n"

    def _put(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            return  # the terminal is gone or the disk full: not a reason to lose work


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _ending(attempt: Attempt, settlement: Settlement) -> tuple[str, str, dict[str, object]]:
    run = attempt.run
    name = f"{run.job} {run.id[:8]} attempt {run.attempt}"
    facts: dict[str, object] = {"run": run.id, "job": run.job, "attempt": run.attempt}
    facts.update(settlement.remarks)
    more = "".join(f"; {remark}" for remark in settlement.remarks.values())
    cause = describe(settlement.outcome)
    match settlement.verdict:
        case Done():
            return "warning" if "output_error" in facts else "info", f"{name} succeeded{more}", facts
        case _ if settlement.outcome == Stopped("revoked"):
            return "info", f"{name} {cause}{more}", facts
        case Retry(delay):
            return "warning", f"{name} failed, again in {delay.total_seconds():g} s: {cause}{more}", facts
        case Release():
            return "warning", f"{name} given back: {cause}{more}", facts
        case _:
            return "error", f"{name} failed: {cause}{more}", facts


class HueyLog(logging.Handler):
    """Passes on what Huey itself finds worth a warning."""

    def __init__(self, log: WorkerLog) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.warning(f"huey: {record.getMessage()}")


def listen_to_huey(log: WorkerLog) -> None:
    """Route Huey's loggers here: its consumer's warnings, and none of `huey`, whose every failed task is in the event
    log and would be formatted, traceback and all, for nobody."""
    logging.getLogger("huey").setLevel(logging.CRITICAL)
    logging.getLogger("huey").propagate = False
    consumer = logging.getLogger("huey.consumer")
    consumer.setLevel(logging.WARNING)
    consumer.handlers = [HueyLog(log)]
    consumer.propagate = False
