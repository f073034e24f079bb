"""Hooks: the run that follows where a run ended, is held, or slots were missed, as its job's definition says. Pure.

Promises: a hook's run gets what of `GIVEN` its job declares, as the types it declares, without the secrets of the run
that it follows; the runs of hooks have no hooks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

import msgspec

from hueyctl.model.definition import Job, Param, ParamType, Project
from hueyctl.model.mask import Mask
from hueyctl.model.order import Order, new_run
from hueyctl.model.run import NewRun, Run
from hueyctl.model.wording import quoted

GIVEN: Final[Mapping[str, tuple[ParamType, ...]]] = {
    "run": ("string",),
    "job": ("string",),
    "state": ("string",),
    "error": ("string",),
    "exit_code": ("integer", "number", "string"),
    "output": ("string",),
}
"""What a hook's job may declare, and as what."""

TEXT_MAX = 4096
"""Of `error` the first, of each stream of `output` the last so many characters and bytes: a parameter may have to fit
an argument of a command, and is stored with its run."""

ANY_JOB = "*"
"""Among `Hooks` what stands for a job that isn't defined; no job can have this name."""


class Occasion(msgspec.Struct, frozen=True, kw_only=True):
    """What a hook follows: `run` is as it ended or is held, None where slots of a schedule were missed.

    `state` is the run's, or `missed`; `reason` why. `mask` hides the secrets that it and its output may tell: those of
    the run, and of all others of its pipeline.
    """

    job: str
    state: str
    reason: str | None = None
    run: Run | None = None
    schedule: str | None = None
    slot: datetime | None = None
    mask: Mask = Mask()

    @classmethod
    def of(cls, run: Run) -> Occasion | None:
        """What became of this run, as an occasion; None: it calls for no hook, whatever its job says."""
        if run.trigger == "hook" or run.state not in {"succeeded", "failed", "expired", "held"}:
            return None
        return cls(job=run.job, state=run.state.value, reason=run.reason, run=run)

    @property
    def key(self) -> str:
        """Which hook follows: `on_success` or `on_failure`."""
        return "on_success" if self.state == "succeeded" else "on_failure"


Hook = Callable[[Occasion], NewRun | None]
"""Makes the run that follows; None: none does. What it raises says why there can be none."""

Hooks = Mapping[str, Hook]
"""Of each job that has one, by its name."""

NO_HOOKS: Final[Hooks] = {}


def hook_run(project: Project, target: str, occasion: Occasion, output: str | None, id: str) -> NewRun:
    """The run of the job `target` that follows, named `id`. `output` is masked already; None: there is none.

    Raises:
        NotFound: there is no such job.
        UsageError: what is given doesn't fit its parameters.
    """
    job, run = project.jobs.get(target), occasion.run
    values = {
        "run": None if run is None else run.id,
        "job": occasion.job,
        "state": occasion.state,
        "error": occasion.mask.optional(occasion.reason),
        "exit_code": None if run is None else run.exit_code,
        "output": output,
    }
    params = {}
    for param in job.params if job else ():
        value = _fitted(param, values.get(param.name))
        if value is not None:
            params[param.name] = value
    new = new_run(project, Order(job=target, params=params), id)
    return msgspec.structs.replace(new, trigger="hook")


def takes_output(project: Project, target: str) -> bool:
    """Does the hook's job declare `output`?"""
    job = project.jobs.get(target)
    return job is not None and job.param("output") is not None


def unfit(job: Job) -> list[str]:
    """Why this job can't be a hook's, since what its parameters need is not given; nothing: it can."""
    return [problem for param in job.params if (problem := _unfit(param))]


def _unfit(param: Param) -> str | None:
    types = GIVEN.get(param.name)
    name = quoted(param.name)
    if types is None:
        if param.required:
            return f"requires the parameter {name}, and a hook gives {', '.join(GIVEN)} alone; give it a default"
    elif param.type not in types:
        return f"has a parameter {name} of type {param.type}, and a hook gives {' or '.join(types)}"
    elif param.required and param.type != "string":
        return f"requires the parameter {name}, which not every end has; give it a default"
    return None


def _fitted(param: Param, value: str | int | None) -> str | int | None:
    """The value as the parameter takes it; None: it is left out, so that it gets its default."""
    if value is None:
        return "" if param.required and param.name in GIVEN else None
    if param.type != "string":
        return value
    # What failed may name a file whose name is no UTF-8: an exception's text then has lone surrogates.
    text = str(value).encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text[:TEXT_MAX] if param.name == "error" else text
