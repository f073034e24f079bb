"""Why a run isn't running (yet): every reason that stands, the one to look at first in front."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from hueyctl.app.workers import serves, unserved
from hueyctl.model.duration import format_duration
from hueyctl.model.instant import iso
from hueyctl.model.run import TERMINAL, Run, RunState
from hueyctl.model.wording import quoted
from hueyctl.storage.store import Pause, Worker


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What decides about a run besides itself: the live workers, the switches that are set, the queued `ahead`, and
    which of its limits are `full` (a line each); for a step of a pipeline the steps `before` it that it waits for; for
    one of a schedule, whose runs go one after the other, the one whose `turn` it is."""

    workers: Sequence[Worker]
    pauses: Sequence[Pause]
    ahead: int
    now: datetime
    full: Sequence[str] = ()
    before: Sequence[Run] = ()
    turn: Run | None = None


def why_not_running(run: Run, around: Surroundings) -> list[str]:
    """The reasons, one line each; none for a run that runs on a live worker or has ended."""
    if run.state in TERMINAL:
        return []
    match run.state:
        case RunState.RUNNING:
            return list(_of_running(run, around))
        case RunState.HELD:
            return [f"it is held: {run.reason or 'no worker can run it'}"]
        case RunState.WAITING:
            return _of_waiting(run, around)
    reasons = []
    if run.state is RunState.SCHEDULED and run.due_at > around.now:
        seconds = (run.due_at - around.now).total_seconds()
        what = f"its retry (attempt {run.attempt + 1})" if run.attempt else "it"
        reasons.append(f"{what} is due in {brief(seconds)}, at {iso(run.due_at)}")
    reasons += in_its_way(run, around)
    nobody = unserved(around.workers, run.queue, run.job)
    if nobody:
        reasons.append(nobody)
    if reasons:
        return reasons
    serving = [worker for worker in around.workers if serves(worker, run.queue)]
    if all(worker.running >= worker.concurrency for worker in serving):
        slots = sum(worker.concurrency for worker in serving)
        reasons.append(f"all workers of its queue are busy: {slots} of {slots} runs are under way")
    if around.ahead:
        more, are = " or more" if around.ahead >= 1000 else "", "is" if around.ahead == 1 else "are"
        reasons.append(f"{around.ahead}{more} of its queue {are} ahead of it")
    return reasons or ["it is about to start"]


def in_its_way(run: Run, around: Surroundings) -> list[str]:
    """What would keep a queued or scheduled run from being claimed, were it due and the next, by a worker that serves
    it, one line each."""
    reasons = []
    if run.gate is not None and run.gate.startswith("schedule:"):
        reasons.append(_its_turn(around.turn))
    return [*reasons, *around.full, *paused(around.pauses, run.queue, run.job)]


def paused(pauses: Sequence[Pause], queue: str, job: str) -> list[str]:
    """Which of these switches keep that job's runs in that queue from being claimed, one line each."""
    return [_paused(pause) for pause in pauses if _applies(pause, queue, job)]


def brief(seconds: float) -> str:
    """A duration for people: `35ms`, `1.2s`, `12s`, `3m20s`, `2h5m`, `3d4h`."""
    from datetime import timedelta

    sign, seconds = ("-", -seconds) if seconds < 0 else ("", seconds)
    if seconds < 10:
        return f"{sign}{format_duration(timedelta(seconds=round(seconds, 3 if seconds < 1 else 1)))}"
    for unit, smaller in ((86400, 3600), (3600, 60), (60, 1)):
        if seconds >= unit:
            return sign + format_duration(timedelta(seconds=int(seconds) // smaller * smaller))
    return f"{sign}{int(seconds)}s"


def _of_running(run: Run, around: Surroundings) -> list[str]:
    if run.worker is not None and all(worker.id != run.worker for worker in around.workers):
        return ["its worker died; the next worker (or `hueyctl revoke --kill`) gives it back"]
    if run.killing:
        return ["it is being stopped: it was revoked"]
    return []


def _of_waiting(run: Run, around: Surroundings) -> list[str]:
    shown = [
        f"waiting for step {step.job}, {step.id[:8]}, which {_STATES.get(step.state) or f'is {step.state}'}"
        for step in around.before[:_SHOWN_STEPS]
    ]
    more = len(around.before) - len(shown)
    return [*shown, f"and for {more} more"] if more else shown or [_its_turn(around.turn)]


def _its_turn(turn: Run | None) -> str:
    whose = f"run {turn.id[:8]} of its schedule is {turn.state}" if turn else "another run of its schedule is under way"
    return f"it waits for its turn: {whose}"


_STATES = {
    RunState.WAITING: "waits itself",
    RunState.FAILED: "failed",
    RunState.EXPIRED: "expired",
    RunState.REVOKED: "was revoked",
    RunState.SKIPPED: "was skipped",
}
_SHOWN_STEPS = 10


def _applies(pause: Pause, queue: str, job: str) -> bool:
    match pause.kind:
        case "all":
            return True
        case "job":
            return pause.name == job
        case "queue":
            return pause.name == queue
        case _:
            return False


def _paused(pause: Pause) -> str:
    what, resume = {
        "all": ("everything is", "hueyctl resume"),
        "job": (f"the job {quoted(pause.name)} is", f"hueyctl resume --job {pause.name}"),
        "queue": (f"the queue {quoted(pause.name)} is", f"hueyctl resume --queue {pause.name}"),
    }[pause.kind]
    note = f" ({pause.note})" if pause.note else ""
    return f"{what} paused by {pause.by}{note}: `{resume}`"
