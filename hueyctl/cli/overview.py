"""The whole at a glance, as `inspect` and `top` show it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from hueyctl.app.overview import Overview, Progress
from hueyctl.app.schedules import ScheduleView
from hueyctl.cli.answer import Table
from hueyctl.cli.words import age, short, took


def overview_document(seen: Overview, slots: Sequence[tuple[datetime, ScheduleView]] | None = None) -> dict[str, Any]:
    """It as JSON-ready values; with the next `slots` of schedules, if they were asked for."""
    next_slots = [
        {
            "schedule": view.schedule.name,
            "job": view.schedule.target if view.schedule.target_kind == "job" else None,
            "pipeline": view.schedule.target if view.schedule.target_kind == "pipeline" else None,
            "slot": at,
            "paused": view.pause is not None,
        }
        for at, view in slots or ()
    ]
    found: dict[str, Any] = msgspec.to_builtins(
        {
            "queues": seen.queues,
            "running": seen.running,
            "progress": seen.progress,
            "next_up": seen.next_up,
            "in_the_way": seen.in_the_way,
            **({} if slots is None else {"next_slots": next_slots}),
            "recent_failures": seen.recent_failures,
            "workers": [each.public() for each in seen.workers],
            "pauses": seen.pauses,
        }
    )
    return found


def queues_table(seen: Overview) -> Table:
    """Queues with how many runs stand in them."""
    rows = []
    for queue in seen.queues:
        served = "yes" if queue.served else "by no live worker"
        counts = map(str, (queue.queued, queue.scheduled, queue.waiting, queue.running, queue.held))
        rows.append((queue.name, *counts, f"{served}, paused" if queue.paused else served))
    return Table(("queue", "queued", "scheduled", "waiting", "running", "held", "served"), rows, "queues")


def running_table(seen: Overview, now: datetime) -> Table:
    """Runs under way, and how far they say they are."""
    rows = [
        (
            *(short(run.id), run.job, str(run.attempt), took(run, now), run.worker or ""),
            shown_progress(seen.progress.get(run.id)),
        )
        for run in seen.running
    ]
    return Table(("run", "job", "attempt", "for", "worker", "progress"), rows, "running")


def next_up_table(seen: Overview, now: datetime) -> Table:
    """Runs in the order in which they'd be claimed, and what they wait for beside their turn."""
    rows = [
        (
            *(short(run.id), run.job, run.state.value, run.queue, str(run.priority), age(run.due_at, now)),
            "; ".join(seen.in_the_way.get(run.id, ())),
        )
        for run in seen.next_up
    ]
    return Table(("run", "job", "state", "queue", "priority", "due", "in its way"), rows, "next up")


def pauses_table(seen: Overview, now: datetime) -> Table:
    """The switches that are set."""
    rows = [(each.kind, each.name, each.by, age(each.at, now), each.note or "") for each in seen.pauses]
    return Table(("paused", "name", "by", "since", "note"), rows, "paused")


def overview_notes(seen: Overview) -> list[str]:
    """What stands in the way of all that waits."""
    notes = [
        f'no live worker serves the queue "{queue.name}", where {_how_many_wait(queue.queued + queue.scheduled)}'
        for queue in seen.queues
        if not queue.served and queue.queued + queue.scheduled
    ]
    if not any(each.alive for each in seen.workers):
        notes.append("no worker is running: `hueyctl worker start` starts one")
    return notes


def _how_many_wait(count: int) -> str:
    return f"{count} wait{'s' if count == 1 else ''}"


def shown_progress(progress: Progress | None) -> str:
    """`40/100 (40%) resizing`, or nothing."""
    if progress is None:
        return ""
    if progress.done is None or progress.total is None:
        return progress.text
    part = f" ({progress.done / progress.total:.0%})" if 0 <= progress.done <= progress.total > 0 else ""
    return f"{progress.done:g}/{progress.total:g}{part} {progress.text}".rstrip()
