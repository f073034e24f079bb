"""Pipelines, over every store: what waits, what is released, skipped and resumed, and what it is handed."""

from __future__ import annotations

import uuid
from typing import Any

from scene import Scene

from hueyctl.model.run import NewStep, Run, RunState

S = RunState
LINE = {"a": (), "b": (0,), "c": (1,)}
FAN = {"a": (), "b": (0,), "c": (0,), "d": (1, 2)}


def accept(scene: Scene, shape: dict[str, tuple[int, ...]], steps: dict[str, dict[str, Any]] | None = None) -> Run:
    """Enqueue the pipeline whose steps are the jobs of `shape`, each after those of these positions."""
    of = steps or {}
    parts = tuple(NewStep(scene.new(job, **of.get(job, {})), after) for job, after in shape.items())
    return scene.accept("etl", steps=parts)


def states(scene: Scene, pipeline: Run) -> list[S]:
    return [step.run.state for step in scene.store.steps(pipeline.id)]


def test_all_runs_of_a_pipeline_are_there_from_the_start(scene: Scene) -> None:
    pipeline = accept(scene, FAN)
    assert (pipeline.job, pipeline.state, pipeline.pipeline, pipeline.position) == ("etl", S.WAITING, pipeline.id, None)
    assert pipeline.is_pipeline
    assert scene.get(pipeline) == pipeline
    steps = scene.store.steps(pipeline.id)
    assert [(step.run.job, step.run.position, step.run.state, step.after) for step in steps] == [
        ("a", 0, S.QUEUED, ()),
        ("b", 1, S.WAITING, (0,)),
        ("c", 2, S.WAITING, (0,)),
        ("d", 3, S.WAITING, (1, 2)),
    ]
    assert all(step.run.pipeline == pipeline.id and not step.run.is_pipeline for step in steps)
    assert [scene.types(step.run) for step in steps] == [["enqueued"]] * 4
    assert [event.pipeline for event in scene.events()[1:]] == [pipeline.id] * 5


def test_a_repeated_id_of_a_pipeline_is_the_one_that_is_there(scene: Scene) -> None:
    id = str(uuid.uuid4())
    parts = (NewStep(scene.new("a")),)
    first, second = (
        scene.store.accept([scene.new("etl", id=id, given_id=True, steps=parts)], by="alice@host", now=scene.now)[0]
        for _ in range(2)
    )
    assert (first.existing, second.existing, second.run) == (False, True, first.run)
    assert len(scene.store.steps(id)) == 1
