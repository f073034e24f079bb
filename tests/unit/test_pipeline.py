"""What a pipeline's steps come to: which waits for which, with which parameters, and as which runs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hueyctl.errors import NotFound, UsageError
from hueyctl.model.definition import Job, Param, Pipeline, Project, Schedule, ScriptBody, Step
from hueyctl.model.order import Order, new_ids, new_run, run_of
from hueyctl.model.pipeline import laid_out, nested, step_params
from hueyctl.model.run import NewRun

A, B, C, D, E, F = (Step(job=name) for name in "abcdef")
NOW = datetime(2026, 7, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("steps", "after"),
    [
        ((A,), [()]),
        ((A, B, C), [(), (0,), (1,)]),
        ((A, (B, C), D), [(), (0,), (0,), (1, 2)]),
        (((A, B), (C, D), E), [(), (), (0, 1), (0, 1), (2, 3)]),
        ((A, (B, (C, D)), E), [(), (0,), (0,), (2,), (1, 3)]),
        ((A, ((B, (C, D)), E), F), [(), (0,), (1,), (1,), (0,), (2, 3, 4)]),
        (((A,),), [()]),
    ],
)
def test_each_step_is_after_what_the_line_before_it_ends_with(steps: Any, after: list[tuple[int, ...]]) -> None:
    placed = laid_out(steps)
    assert [each.step for each in placed] == [A, B, C, D, E, F][: len(after)]
    assert [each.after for each in placed] == after


SHAPES = st.recursive(st.just(A), lambda inner: st.lists(inner, min_size=1, max_size=4).map(tuple), max_leaves=30)
LINES = st.lists(SHAPES, min_size=1, max_size=5).map(tuple)


def before(shape: Any, *, line: bool) -> tuple[set[tuple[int, int]], int]:
    """By the words of the definition: each pair of steps of which one must have ended before the other, and how many
    steps there are."""
    if isinstance(shape, Step):
        return set(), 1
    pairs: set[tuple[int, int]] = set()
    count = 0
    for part in shape:
        inner, size = before(part, line=not line)
        pairs |= {(count + first, count + second) for first, second in inner}
        if line:
            pairs |= {(first, second) for first in range(count) for second in range(count, count + size)}
        count += size
    return pairs, count


@given(LINES)
def test_any_nesting_is_a_graph_without_cycles_in_which_exactly_what_stands_before_a_step_comes_before_it(
    steps: Any,
) -> None:
    placed = laid_out(steps)
    ancestors: list[set[int]] = []
    for position, each in enumerate(placed):
        assert all(parent < position for parent in each.after)
        assert list(each.after) == sorted(set(each.after)), "what it is given is in the order of the steps"
        ancestors.append(set(each.after).union(*(ancestors[parent] for parent in each.after)))
        # No edge that another path already makes: what a step gets are the last ones before it, and no others.
        assert not any(other in ancestors[parent] for parent in each.after for other in each.after)
    pairs, size = before(steps, line=True)
    assert len(placed) == size
    assert {(first, second) for second, found in enumerate(ancestors) for first in found} == pairs


@given(LINES)
def test_the_nesting_is_found_again_from_what_each_step_is_after(steps: Any) -> None:
    after = [each.after for each in laid_out(steps)]
    found = nested(after)

    def with_steps(shape: Any) -> Any:
        return A if isinstance(shape, int) else tuple(map(with_steps, shape))

    def parts(shape: Any) -> Iterator[Any]:
        for part in shape:
            yield part
            yield from () if isinstance(part, int) else parts(part)

    assert [part for part in parts(found) if isinstance(part, int)] == list(range(len(after)))
    assert all(isinstance(part, int) or len(part) > 1 for part in parts(found))
    assert [each.after for each in laid_out(with_steps(found))] == after


def test_groups_of_one_are_not_found_again() -> None:
    after = [each.after for each in laid_out(((((A, B), C), D), (E,), F))]
    assert nested(after) == ((((0, 1), 2), 3), 4, 5)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("{n}", 3),
        ("{list}", ["a", "b"]),
        ("{text}", "x{n}"),
        ("{n}-{text}", "3-x{n}"),
        ("{{n}}", "{n}"),
        ("plain", "plain"),
        (["{n}", "{list}", "{absent}", "is {n}", 7, [True]], [3, ["a", "b"], "is 3", 7, [True]]),
        ("[{absent}]", "[]"),
        (7, 7),
    ],
)
def test_a_placeholder_alone_keeps_the_type_and_inside_text_is_text(value: Any, found: Any) -> None:
    params = {"n": 3, "list": ["a", "b"], "text": "x{n}"}
    assert step_params(Step(job="a", params={"p": value, "q": "{absent}"}), params) == {"p": found}


PARAMS = (Param(name="n", type="integer", default=1), Param(name="word", type="string", default="w"))


def job(name: str, **more: Any) -> Job:
    return Job(name=name, body=ScriptBody(text="true", shell=("sh",)), dir=Path("/"), **{"params": PARAMS, **more})


def project(*steps: Any, **more: Any) -> Project:
    jobs = [
        job("a", queue="slow", priority=7, expires=timedelta(hours=1)),
        job("b", lock="crm-{word}", unique="job"),
        job("c", params=(Param(name="need", type="string", required=True),)),
    ]
    pipeline = Pipeline(name="p", steps=steps, **more)
    return Project(
        path=Path("/jobs.toml"), store="/s", jobs={each.name: each for each in jobs}, pipelines={"p": pipeline}
    )


def made(of: Project, **order: Any) -> NewRun:
    return new_run(of, Order(job="p", **order), next(new_ids(1)))


def test_a_pipelines_run_has_a_run_for_each_step_with_its_jobs_own_settings() -> None:
    of = project(A, (B, B), params=(Param(name="size", type="integer", default=5),))
    run = made(of, params={"size": 9}, id="7C1E2F6A-90d4-4c5b-8f3e-2a1b0c9d8e7f")
    assert (run.job, run.id, run.given_id) == ("p", "7c1e2f6a-90d4-4c5b-8f3e-2a1b0c9d8e7f", True)
    assert (run.message.params, run.queue, run.priority, run.expires_s) == ({"size": 9}, "default", 0, None)
    first, second, third = (each.run for each in run.steps)
    assert [each.after for each in run.steps] == [(), (0,), (0,)]
    assert (first.job, first.queue, first.priority, first.expires_s) == ("a", "slow", 7, 3600)
    assert (second.lock_key, second.queue) == ("crm-w", "default")
    # Two runs of a unique job can't stand in one pipeline's run, and each of them belongs to it.
    assert second.unique_key is third.unique_key is None
    assert len({run.id, first.id, second.id, third.id}) == 4
    assert not any(each.run.given_id for each in run.steps)


def test_what_is_asked_for_a_pipelines_run_goes_to_the_steps_that_it_concerns() -> None:
    run = made(project(A, (B, B)), priority=0, queue="q", due_at=NOW, expires=timedelta(minutes=1))
    assert (run.queue, run.due_at, run.expires_s) == ("q", NOW, 60)
    assert [(each.run.queue, each.run.priority) for each in run.steps] == [("q", 0)] * 3
    assert [each.run.due_at for each in run.steps] == [NOW, None, None]
    assert [each.run.expires_s for each in run.steps] == [60, None, None]


@pytest.mark.parametrize("option", [{"retries": 3}, {"timeout": timedelta(1)}])
def test_what_only_jobs_have_is_refused_for_a_pipeline(option: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(option))}: a pipeline has none of its own"):
        made(project(A), **option)


def test_a_steps_parameters_are_those_of_its_pipeline_and_checked_like_any() -> None:
    params = (Param(name="size", type="integer", required=True),)
    of = project(Step(job="a", params={"n": "{size}", "word": "s{size}"}), params=params)
    assert made(of, params={"size": 4}).steps[0].run.message.params == {"n": 4, "word": "s4"}
    with pytest.raises(UsageError, match=r'^p: parameter "size" is required$'):
        made(of)
    absent = project(Step(job="c", params={"need": "{word}"}), params=(Param(name="word", type="string"),))
    with pytest.raises(UsageError, match=r'^p: step c: parameter "need" is required$'):
        made(absent)


def test_what_is_secret_in_a_pipeline_is_secret_in_the_steps_that_take_it() -> None:
    params = (
        Param(name="token", type="string", secret=True, required=True),
        Param(name="n", type="integer", default=2),
    )
    of = project(Step(job="a", params={"word": "Bearer {token}", "n": "{n}"}), B, params=params)
    run = made(of, params={"token": "hunter22"})
    assert run.message.secrets == ("token",)
    assert [each.run.message.secrets for each in run.steps] == [("word",), ()]


def test_a_schedule_starts_a_pipeline_with_its_priority_and_queue() -> None:
    schedule = Schedule(name="s", target="p", target_kind="pipeline", timezone="UTC", priority=3, queue="night")
    run = run_of(project(A, B), schedule, NOW, "schedule", NOW)
    assert (run.job, run.schedule, run.slot, run.trigger) == ("p", "s", NOW, "schedule")
    assert [(each.run.priority, each.run.queue) for each in run.steps] == [(3, "night")] * 2


def test_a_name_that_is_neither_a_job_nor_a_pipeline_is_answered_with_the_nearest() -> None:
    named = project(A)
    of = Project(path=named.path, store="/s", pipelines={"etl": named.pipelines["p"]})
    with pytest.raises(NotFound, match='there is no job "etll"; did you mean "etl"'):
        new_run(of, Order(job="etll"), "x")
