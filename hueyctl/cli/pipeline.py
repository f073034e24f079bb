"""Pipelines on the screen: `hueyctl graph`, and what `hueyctl inspect` shows of one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
import typer

from hueyctl.app.clock import utc_now
from hueyctl.app.detail import enqueued_by, why
from hueyctl.app.finding import find_pipeline
from hueyctl.app.pipelines import Graph, StepView, defined_graph, public_pipeline, run_graph
from hueyctl.app.public import PublicRun, public_of
from hueyctl.app.schedules import ScheduleView, public_schedule
from hueyctl.app.session import Session
from hueyctl.cli.answer import Answer, Block, Facts, Lines, Table
from hueyctl.cli.params import declared_params, given_params
from hueyctl.cli.runs import runs_table
from hueyctl.cli.schedule import schedules_table
from hueyctl.cli.settings import settings
from hueyctl.cli.words import as_text, moment, short, took
from hueyctl.errors import StoreMissing
from hueyctl.model.definition import Pipeline
from hueyctl.model.pipeline import nested
from hueyctl.model.run import Run
from hueyctl.storage.store import RunFilter

SHOWN_RUNS = 10


def graph(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A pipeline; or a run of one, or of a step of one: an id, 4 of it, or last."
        ),
    ],
    mermaid: Annotated[bool, typer.Option("--mermaid", help="As the text of a Mermaid flowchart.")] = False,
) -> Answer:
    """Draw the steps of a pipeline as a tree. As it is defined, or with the states of a run."""
    session, now = settings.store_session(), utc_now()
    pipeline = session.project.pipelines.get(name)
    if pipeline is not None and name != "last":
        found = defined_graph(session.project, pipeline)
    else:
        run = find_pipeline(session, name)
        if session.file_error and run.job == name:
            raise session.file_error  # what a name means is in the file
        found = run_graph(session, run)
    return Answer(
        documents=[{"graph": msgspec.to_builtins(found)}],
        blocks=[Lines(list(flowchart(found)))] if mermaid else [_tree(session, found, now)],
    )


def pipeline_answer(session: Session, pipeline: Pipeline, scheduled: Sequence[ScheduleView], now: datetime) -> Answer:
    """What `inspect` shows of a pipeline: its definition, schedules and newest runs."""
    try:
        newest = session.reader().runs(RunFilter(job=pipeline.name), limit=SHOWN_RUNS)
    except StoreMissing:
        newest = []
    runs = [public_of(session, run) for run in newest]
    facts = [("pipeline", pipeline.name), ("description", pipeline.description)]
    blocks: list[Block] = [Facts([(name, value) for name, value in facts if value])]
    blocks += [
        *declared_params(pipeline.params),
        _tree(session, defined_graph(session.project, pipeline), now, "steps"),
    ]
    if scheduled:
        blocks.append(schedules_table(scheduled, now, "schedules"))
    if runs:
        blocks.append(runs_table(runs, now, "newest runs"))
    document = {
        "pipeline": public_pipeline(session.project, pipeline),
        "schedules": [public_schedule(session, view) for view in scheduled],
        "runs": runs,
    }
    return Answer(documents=[msgspec.to_builtins(document)], blocks=blocks)


def pipeline_run_answer(session: Session, run: Run, now: datetime) -> Answer:
    """What `inspect` shows of a pipeline's run: the whole of it."""
    found, reasons, by = run_graph(session, run), why(session, run, now=now), enqueued_by(session, run)
    shown = found.run
    assert shown is not None, "it is the graph of a run"
    pairs = [
        ("run", shown.id),
        ("pipeline", shown.job),
        ("state", shown.state.value),
        *(("why", line) for line in reasons),
        ("reason", shown.reason or ""),
        ("trigger", shown.trigger),
        ("by", by or ""),
        ("schedule", shown.schedule or ""),
        ("slot", moment(shown.scheduled_at, now)),
        ("enqueued", moment(shown.enqueued_at, now)),
        ("due", moment(shown.due_at, now)),
        ("started", moment(shown.started_at, now)),
        ("finished", moment(shown.finished_at, now)),
        ("result", as_text(shown.result)[:200]),
        ("result error", shown.result_error or ""),
    ]
    facts = Facts([(name, value) for name, value in pairs if value])
    document = {"run": shown, "by": by, "why": reasons, "steps": found.steps}
    return Answer(
        documents=[msgspec.to_builtins(document)],
        blocks=[facts, *given_params(shown), _tree(session, found, now, "steps")],
    )


def flowchart(found: Graph) -> Iterator[str]:
    """The lines of a Mermaid flowchart; steps are coloured by their states."""
    yield "flowchart TD"
    for step in found.steps:
        state = f"<br/>{step.run.state}" if step.run else ""
        colour = f":::{step.run.state}" if step.run and step.run.state in _COLOURS else ""
        # Mermaid's own escape: a quotation mark would end the label, and what follows be read as syntax.
        yield f'    s{step.position}["{step.job.replace(chr(34), "#quot;")}{state}"]{colour}'
    for step in found.steps:
        for position in step.after:
            yield f"    s{position} --> s{step.position}"
    states = {step.run.state.value for step in found.steps if step.run}
    for state in sorted(states & _COLOURS.keys()):
        yield f"    classDef {state} {_COLOURS[state]}"


_COLOURS = {
    "running": "fill:#cff,stroke:#088",
    "succeeded": "fill:#cfc,stroke:#080",
    "failed": "fill:#fcc,stroke:#800",
    "revoked": "fill:#ffc,stroke:#880",
    "expired": "fill:#ffc,stroke:#880",
    "skipped": "fill:#eee,stroke:#888",
    "held": "fill:#fcf,stroke:#808",
}


def _tree(session: Session, found: Graph, now: datetime, title: str | None = None) -> Table:
    """The steps, one a line, their nesting drawn in front of them."""
    drawn = list(_drawn(nested([step.after for step in found.steps]), found.steps))
    if found.run is None:
        rows: list[tuple[str, ...]] = [(found.pipeline, "", "")]
        for text, step in drawn:
            job = session.job(step.job) if step else None
            given = step.params if step and step.params else {}
            params = " ".join(f"{name}={as_text(value)}" for name, value in given.items())
            rows.append((text, params, job.description if job else ""))
        return Table(("step", "params", "description"), rows, title)
    rows = [(found.pipeline, *_cells(found.run, now))]
    rows += [(text, *_cells(step.run if step else None, now)) for text, step in drawn]
    return Table(("step", "run", "state", "attempt", "took", "reason"), rows, title)


def _cells(run: PublicRun | None, now: datetime) -> tuple[str, ...]:
    if run is None:
        return ("",) * 5
    attempt = "" if run.is_pipeline else str(run.attempt)
    return (short(run.id), run.state.value, attempt, took(run, now), run.reason or "")


def _drawn(
    parts: Sequence[Any], steps: Sequence[StepView], before: str = "", *, line: bool = True
) -> Iterator[tuple[str, StepView | None]]:
    """Each step behind the lines that lead to it; what stands for several has no step."""
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        here, below = ("└─ ", "   ") if last else ("├─ ", "│  ")
        if isinstance(part, int):
            yield _unbroken(f"{before}{here}{steps[part].job}"), steps[part]
        else:
            yield _unbroken(f"{before}{here}{'side by side' if line else 'one after the other'}"), None
            yield from _drawn(part, steps, before + below, line=not line)


def _unbroken(text: str) -> str:
    """The text as one word: a narrow terminal cuts what has spaces, and a step's name at the end of its lines is lost
    first."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")
