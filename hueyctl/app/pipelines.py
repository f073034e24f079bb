"""Pipelines as users see them: how their steps hang together, and what became of each in a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from hueyctl.app.detail import public_params
from hueyctl.app.public import PublicRun, public_of
from hueyctl.app.session import Session
from hueyctl.model.definition import Pipeline, Project, Step
from hueyctl.model.order import secrets_of
from hueyctl.model.params import masked
from hueyctl.model.pipeline import laid_out
from hueyctl.model.run import Run


class StepView(msgspec.Struct, frozen=True, kw_only=True):
    """A step and the positions of those that it waits for; what its definition gives it, or its run."""

    position: int
    after: tuple[int, ...]
    job: str
    params: dict[str, Any] | None = None
    run: PublicRun | None = None


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """The steps of a pipeline in their order: as it is defined, or of a run of it."""

    pipeline: str
    run: PublicRun | None
    steps: list[StepView]


def run_graph(session: Session, run: Run) -> Graph:
    """The steps of this pipeline's run, as they are now."""
    steps = [
        StepView(position=position, after=each.after, job=each.run.job, run=public_of(session, each.run))
        for position, each in enumerate(session.reader().steps(run.id))
    ]
    return Graph(pipeline=run.job, run=public_of(session, run), steps=steps)


def defined_graph(project: Project, pipeline: Pipeline) -> Graph:
    """The steps of a pipeline, as `jobs.toml` says."""
    steps = [
        StepView(position=position, after=each.after, job=each.step.job, params=_given(project, each.step))
        for position, each in enumerate(laid_out(pipeline.steps))
    ]
    return Graph(pipeline=pipeline.name, run=None, steps=steps)


def public_pipeline(project: Project, pipeline: Pipeline) -> dict[str, Any]:
    """A definition as JSON-ready values, secret parameters masked."""
    return {
        "name": pipeline.name,
        "description": pipeline.description,
        "params": public_params(pipeline.params),
        "steps": _public_steps(project, pipeline.steps),
    }


def in_words(steps: Sequence[Any], between: str = " → ") -> str:
    """Steps on one line: `fetch → (check | transform → shrink) → store`."""
    words = []
    # Loops, for a comprehension takes a second frame per level, and a file may nest lists as deep as frames go.
    for each in steps:
        if isinstance(each, Step):
            words.append(each.job)
        elif between == _ASIDE:
            words.append(in_words(each))
        else:
            words.append(f"({in_words(each, _ASIDE)})")
    return between.join(words)


_ASIDE = " | "


def _public_steps(project: Project, steps: Sequence[Any]) -> list[Any]:
    found: list[Any] = []
    for each in steps:
        if isinstance(each, Step):
            found.append({"job": each.job, "params": _given(project, each)})
        else:
            found.append(_public_steps(project, each))
    return found


def _given(project: Project, step: Step) -> dict[str, Any]:
    job = project.jobs.get(step.job)
    return masked(step.params, secrets_of(job) if job else ())
