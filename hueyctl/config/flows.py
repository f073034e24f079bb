"""`[pipelines.NAME]` and `[schedules.NAME]`: what refers to jobs, and to the parameters that they take."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta
from typing import Any, Literal, NamedTuple

from hueyctl.config import declared
from hueyctl.config.keys import read
from hueyctl.config.reading import (
    At,
    Key,
    Keys,
    duration,
    filled_text,
    flag,
    in_utc,
    instant,
    integer,
    name,
    named,
    one_of,
    some_time,
    takes,
    text,
    timezone,
    unread,
)
from hueyctl.model.command import alone, filled, placeholders
from hueyctl.model.definition import Job, Param, Pipeline, Schedule, Step
from hueyctl.model.hook import unfit
from hueyctl.model.params import checked
from hueyctl.model.pipeline import taken
from hueyctl.model.wording import did_you_mean, quoted, shown

Jobs = Mapping[str, Job | None]
Pipelines = Mapping[str, Pipeline | None]

# Each slot is a durable write: a slip like "15us" would keep the disk busy and fill the store.
LEAST_EVERY = timedelta(milliseconds=100)

RULES = ("cron", "every", "at")


@takes({"type": "string", "pattern": r"^\s*(?:@\w+|\S+(?:\s+\S+){4,5})\s*$"})
def _cron(at: At, value: object) -> str | None:
    found = filled_text(at, value)
    if found is None:
        return None
    from hueyctl.model.cron import Cron

    try:
        Cron(found)
    except ValueError as exc:
        at.wrong(f'expected a cron expression like "30 2 * * *", got {shown(found)}: {exc}')
        return None
    return found.strip()


PIPELINE: Keys = {
    "description": Key(text, "What it does, in a line; `hueyctl jobs` shows it."),
    "params": Key(declared.params, "The parameters that it takes, as a job's; {name} in a step's params takes one."),
    "steps": Key(
        unread({"type": "array", "items": {"$ref": "#/$defs/step"}, "minItems": 1}),
        "One after the other, each given the result of the one before; a list within runs side by side.",
    ),
}
STEP: Keys = {
    "job": Key(name, "The job that it runs."),
    "params": Key(declared.given, "The job's parameters; {name} takes one of the pipeline."),
}
SCHEDULE: Keys = {
    "job": Key(name, "The job that is enqueued; otherwise the job or pipeline of the same name as the schedule."),
    "pipeline": Key(name, "The pipeline that is enqueued."),
    "params": Key(declared.given, "Its parameters."),
    "priority": Key(integer(), "Its priority; otherwise the job's."),
    "queue": Key(name, "Its queue; otherwise the job's."),
    "cron": Key(_cron, "Five fields, or six with seconds first; or @hourly, @daily, @weekly, @monthly, @yearly."),
    "every": Key(
        some_time(least=LEAST_EVERY),
        "A grid that begins with 1970-01-01T00:00:00Z plus offset, and knows no time zone.",
    ),
    "offset": Key(duration, "Shifts the grid of every; shorter than it."),
    "at": Key(instant, "One date and time; without an offset it is local to timezone."),
    "timezone": Key(
        timezone, "An IANA name: of cron, and of dates and times without an offset; otherwise that of [hueyctl]."
    ),
    "start": Key(instant, "It fires at no time before this."),
    "end": Key(instant, "It fires at no time after this."),
    "enabled": Key(flag, "false: it fires nothing. Enabled again, it starts from then."),
    "jitter": Key(duration, "A run is due up to this much later than its slot, always before the next one."),
    "overlap": Key(
        one_of("skip", "queue", "allow", "replace"),
        "While a run of it is live: leave the slot out, let one run wait, start beside it, or end it.",
    ),
    "catch_up": Key(one_of("none", "latest", "all"), "Which slots are made up for when they were missed."),
    "catch_up_window": Key(duration, "None that is later than this is made up for."),
    "catch_up_max": Key(integer(1), "With catch_up = all, no more than the newest so many."),
    "grace": Key(duration, "A slot that is fired so late (or a second) is in time."),
}


def check_hooks(at: At, raw: Mapping[str, Any], jobs: Jobs) -> None:
    """Say where `on_failure` and `on_success` name no job, or one that a hook can't give what it needs; of the default
    it is said once, there."""
    tables = [(at / "defaults", raw.get("defaults"))]
    every = raw.get("jobs")
    tables += [(at / "jobs" / key, item) for key, item in every.items()] if isinstance(every, dict) else []
    for place, item in tables:
        for key in ("on_failure", "on_success"):
            if isinstance(item, dict) and isinstance(target := item.get(key), str):
                known = _check_known(place / key, "job", target, jobs, raw.get("pipelines", ()))
                for problem in unfit(job) if known and (job := jobs[target]) else ():
                    (place / key).wrong(f"the job {quoted(target)} {problem}")


def read_pipelines(at: At, raw: Mapping[str, Any], jobs: Jobs) -> dict[str, Pipeline | None]:
    """The pipelines of the file; None for one that is wrong, which has been reported."""
    found: dict[str, Pipeline | None] = {}
    tables = list(named(at / "pipelines", raw.get("pipelines", {})))
    names = [key for key, _, _ in tables]
    for key, place, values in tables:
        count = len(at.problems)
        if key in jobs:
            place.wrong("there is a job of this name; jobs and pipelines share their names")
        if key == "last":
            place.wrong('"last" means the newest run; choose another name')
        given = read(place, values, PIPELINE)
        params = {param.name: param for param in given.get("params", ())}
        given["steps"] = _steps(place / "steps", values.get("steps"), _Known(jobs, names, params))
        found[key] = Pipeline(name=key, **given) if len(at.problems) == count else None
    return found


class _Known(NamedTuple):
    """What the steps of a pipeline may name: jobs, and the pipeline's own parameters; and the pipelines, to say no."""

    jobs: Jobs
    pipelines: Collection[str]
    params: Mapping[str, Param]


def _steps(at: At, value: object, known: _Known) -> tuple[Any, ...]:
    """Steps in a line; in each list within, the other way round: side by side in a line, in a line side by side."""
    if not isinstance(value, list) or not value:
        at.wrong(f"expected a list of one or more steps, got {'none' if not value else shown(value)}")
        return ()
    return tuple(
        _steps(at[index], item, known) if isinstance(item, list) else _step(at[index], item, known)
        for index, item in enumerate(value)
    )


def _step(at: At, value: object, known: _Known) -> Step | None:
    if not isinstance(value, str | dict):
        at.wrong(f'expected a job\'s name, {{ job = "…", params = … }} or a list of steps, got {shown(value)}')
        return None
    given: dict[str, Any] = {"job": value} if isinstance(value, str) else read(at, value, STEP)
    if "job" not in given:
        if not isinstance(value, dict) or "job" not in value:
            at.wrong("a step needs its job")
        return None
    place, target = at if isinstance(value, str) else at / "job", given["job"]
    if target in known.pipelines and target not in known.jobs:
        place.wrong(f"{quoted(target)} is a pipeline; a step is a job, or a list of steps")
    elif _check_known(place, "job", target, known.jobs, ()) and (job := known.jobs[target]):
        _check_params(at / "params", given.get("params", {}), job.params, known.params)
    return Step(**given)


def read_schedules(
    at: At,
    raw: Mapping[str, Any],
    jobs: Jobs,
    pipelines: Pipelines,
    *,
    default_timezone: str,
) -> dict[str, Schedule]:
    """The schedules of the file that are right; what is wrong with the others has been reported."""
    found = {}
    for key, place, values in named(at / "schedules", raw.get("schedules", {})):
        count = len(at.problems)
        given = read(place, values, SCHEDULE)
        given.setdefault("timezone", default_timezone)
        _resolve_target(place, key, values, given, jobs=jobs, pipelines=pipelines)
        _check_times(place, values, given)
        if len(at.problems) == count:
            schedule = Schedule(name=key, **given)
            if _ever_fires(place, schedule):
                found[key] = schedule
    return found


def _resolve_target(
    at: At, key: str, raw: Mapping[str, Any], given: dict[str, Any], *, jobs: Jobs, pipelines: Pipelines
) -> None:
    if "job" in raw and "pipeline" in raw:
        at.wrong("expected job or pipeline, got both")
        return
    if "job" not in raw and "pipeline" not in raw:
        if key not in jobs and key not in pipelines:
            at.wrong(
                f"expected job or pipeline, got neither, and there is no job {quoted(key)}{did_you_mean(key, jobs)}"
            )
            return
        given["pipeline" if key in pipelines else "job"] = key
    kind: Literal["job", "pipeline"] = "pipeline" if "pipeline" in raw or "pipeline" in given else "job"
    target = given.pop(kind, None)
    both: tuple[Mapping[str, Job | Pipeline | None], ...] = (jobs, pipelines)
    known, others = both if kind == "job" else reversed(both)
    if target is None or not _check_known(at / kind, kind, target, known, others):
        return
    given |= {"target": target, "target_kind": kind}
    if definition := known[target]:
        _check_params(at / "params", given.get("params", {}), definition.params, None)


def _check_times(at: At, raw: Mapping[str, Any], given: dict[str, Any]) -> None:
    rules = [key for key in RULES if key in raw]
    if len(rules) != 1:
        at.wrong(f"expected exactly one of cron, every and at, got {' and '.join(rules) or 'none'}")
    if "offset" in raw and "every" not in raw:
        (at / "offset").wrong("an offset goes with every")
    elif given.get("offset", timedelta(0)) >= given.get("every", timedelta.max):
        (at / "offset").wrong("expected an offset shorter than every")
    for key in ("at", "start", "end"):
        if key in given:
            given[key] = in_utc(at / key, given[key], given["timezone"])
        if key != "at" and key in raw and rules == ["at"]:
            (at / key).wrong(f"{key} goes with cron or every; at is a single time")
    start, end = given.get("start"), given.get("end")
    if start and end and end <= start:
        (at / "end").wrong("expected an end after the start")


def _ever_fires(at: At, schedule: Schedule) -> bool:
    """Say when no time of the rule lies between start and end. (Whether all of them are past is no mistake.)"""
    start, end = schedule.start, schedule.end
    if start is None or end is None:
        return True
    from hueyctl.model.schedule import FireTimes

    if FireTimes(schedule).after(start - timedelta(microseconds=1)) is not None:
        return True
    (at / "end").wrong("there is no time to fire between start and end")
    return False


def _check_known(
    at: At, kind: Literal["job", "pipeline"], target: str, known: Mapping[str, object], others: Collection[str]
) -> bool:
    """Say where `target` is none of the `known`; `others` are those of the other kind."""
    if target in known:
        return True
    other = {"job": "pipeline", "pipeline": "job"}[kind]
    near = f"; it is a {other}" if target in others else did_you_mean(target, known)
    at.wrong(f"there is no {kind} {quoted(target)}{near}")
    return False


def _check_params(
    at: At, given: Mapping[str, Any], takes: Iterable[Param], pipeline: Mapping[str, Param] | None
) -> None:
    """Check what a step or a schedule gives against what its target takes.

    In a step, `{name}` is a parameter of its pipeline; in a schedule (`pipeline` None), text is text.
    """
    by_name = {param.name: param for param in takes}
    for key, value in given.items():
        param = by_name.get(key)
        if param is None:
            (at / key).wrong(f"there is no such parameter{did_you_mean(key, by_name)}")
        elif pipeline is not None and taken(value):
            _check_handed_on(at / key, value, param, pipeline)
        else:
            try:
                checked(param, filled(value, {}) if pipeline is not None and isinstance(value, str) else value)
            except ValueError as exc:
                (at / key).wrong(str(exc))
    for param in by_name.values():
        if param.required and param.name not in given:
            (at / param.name).wrong("this parameter is required")


def _check_handed_on(at: At, value: Any, param: Param, pipeline: Mapping[str, Param]) -> None:
    """Check a value that takes parameters of the pipeline: that they are there, and of the type that is expected."""
    unknown = [found for found in sorted(taken(value)) if found not in pipeline]
    for found in unknown:
        at.wrong(f"the pipeline has no parameter {quoted(found)}{did_you_mean(found, pipeline)}")
    if unknown:
        return
    arrays = sorted(
        found for text in _inside(value) for found in placeholders([text]) if pipeline[found].type == "array"
    )
    for found in arrays:
        at.wrong(f"{{{found}}} inside text makes text, and is of type array")
    if not isinstance(value, str):
        if param.type != "array":
            at.wrong(f"expected a value of type {param.type}, got a list")
        return
    whole = alone(value)
    source = pipeline[whole] if whole else None
    if source is None:
        if param.type != "string" and not arrays:
            at.wrong(f"{{{min(taken(value))}}} inside text makes text: expected a value of type {param.type}")
    elif source.type != param.type and (source.type, param.type) != ("integer", "number"):
        at.wrong(f"expected a parameter of type {param.type}, and {value} is of type {source.type}")
    elif param.required and not source.required and source.default is None:
        at.wrong(f"this parameter is required, and {value} may be absent: make it required, or give it a default")


def _inside(value: Any) -> Iterable[str]:
    """The texts in a value that are more than one placeholder alone."""
    match value:
        case str() if alone(value) is None:
            yield value
        case list():
            for item in value:
                yield from _inside(item)
