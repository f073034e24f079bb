"""What names a run: its id; and its lock and unique keys, made of job and parameters when it is accepted."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from hueyctl.app.order import copy_of
from hueyctl.model.definition import Job, Param, Project, ScriptBody
from hueyctl.model.order import KEY_MAX, Order, lock_key, new_ids, new_run, unique_key
from hueyctl.model.run import NewRun, Run, RunState

PARAMS = (
    Param(name="tenant", type="string", default="acme"),
    Param(name="size", type="number"),
    Param(name="tags", type="array"),
)


def job(name: str = "sync", **given: Any) -> Job:
    return Job(name=name, body=ScriptBody(text="true", shell=("sh",)), dir=Path("/"), params=PARAMS, **given)


def made(definition: Job, **params: Any) -> NewRun:
    project = Project(path=Path("/jobs.toml"), store="/s", jobs={definition.name: definition})
    return new_run(project, Order(job=definition.name, params=params), next(new_ids(1)))


def test_new_ids_are_random_uuids_of_version_4_in_ascending_order() -> None:
    ids = list(new_ids(2_000))
    assert len(set(ids)) == 2_000
    assert ids == sorted(ids)
    for id in ids:
        assert (str(uuid.UUID(id)), uuid.UUID(id).version, uuid.UUID(id).variant) == (id, 4, uuid.RFC_4122)
    digits = [{id[place] for id in ids} - {"-"} for place in range(36)]
    fixed = {8: 0, 13: 0, 14: 1, 18: 0, 19: 4, 23: 0}
    assert [len(each) for each in digits] == [fixed.get(place, 16) for place in range(36)]


@pytest.mark.parametrize(
    ("template", "params", "key"),
    [
        ("disk", {}, "disk"),
        ("crm-{tenant}", {}, "crm-acme"),
        ("crm-{tenant}", {"tenant": "{size}"}, "crm-{size}"),
        ("{size}", {"size": 1.5}, "1.5"),
        ("{size}", {}, ""),
        ("{{tenant}}", {}, "{tenant}"),
    ],
)
def test_a_lock_is_filled_with_the_runs_parameters_and_its_defaults(
    template: str, params: dict[str, Any], key: str
) -> None:
    assert made(job(lock=template), **params).lock_key == key


def test_jobs_of_one_lock_meet_whatever_their_names() -> None:
    assert made(job("a", lock="disk")).lock_key == made(job("b", lock="disk")).lock_key
    assert made(job()).lock_key is None


def test_a_long_key_stays_short_and_its_own() -> None:
    long, other = ("x" * 10_000 + end for end in "ab")
    keys = {lock_key(job(lock="{tenant}"), {"tenant": text}) for text in (long, other, long[:KEY_MAX])}
    assert len(keys) == 3
    assert all(key is not None and len(key) < KEY_MAX + 70 for key in keys)


def test_unique_by_parameters_counts_defaults_and_not_how_a_number_is_written() -> None:
    unique = job(unique="params")
    assert made(unique).unique_key == made(unique, tenant="acme").unique_key
    assert made(unique, size=2, tags=[1, [2]]).unique_key == made(unique, tags=[1, [2]], size=2.0).unique_key
    keys = [made(unique, **params).unique_key for params in ({}, {"size": 1}, {"tags": ["1"]}, {"tags": [1]})]
    assert len(set(keys)) == 4
    assert made(job("other", unique="params")).unique_key != keys[0]


def test_unique_by_job_counts_no_parameters() -> None:
    unique = job(unique="job")
    assert made(unique).unique_key == made(unique, tenant="b").unique_key != made(job("b", unique="job")).unique_key
    assert unique_key(job(), {}) is None


def test_a_copy_of_a_run_has_the_keys_of_todays_definition() -> None:
    definition = job(lock="{tenant}", unique="params")
    run = made(definition, tenant="b")
    old = Run(
        n=1,
        id=run.id,
        job=run.job,
        state=RunState.FAILED,
        queue="q",
        priority=0,
        message=run.message,
        **dict.fromkeys(("enqueued_at", "due_at")),
    )
    copy = copy_of(Project(path=Path("/j"), store="/s", jobs={"sync": definition}), old, "x")
    assert (copy.lock_key, copy.unique_key) == (run.lock_key, run.unique_key)
