"""What `check` sees beyond `jobs.toml` itself: Python targets, shells, programs, and what schedules may not mean.

Only children import user code.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from hueyctl.app.clock import utc_now
from hueyctl.engine.definitions import Definitions, EnvFileError
from hueyctl.engine.lacking import lacking
from hueyctl.model import schedule_doubts
from hueyctl.model.definition import Job, Project, PythonBody
from hueyctl.model.wording import did_you_mean, quoted
from hueyctl.process.targets import TargetParameter, TargetQuery, TargetReport, check_targets


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What was found, one line each: `problems` would fail a run, `warnings` may be right elsewhere."""

    jobs: int
    pipelines: int
    schedules: int
    problems: list[str]
    warnings: list[str]


def check(project: Project, *, environ: Mapping[str, str]) -> Checked:
    """Look at everything that the jobs name and that can be looked at without running them, and doubt schedules."""
    file = project.path.name
    problems: list[str] = []
    warnings: list[str] = []
    definitions = Definitions(project, environ)
    python = [(job, job.body) for job in project.jobs.values() if isinstance(job.body, PythonBody)]
    reports = check_targets([_query(job, body, definitions) for job, body in python])
    for (job, _), report in zip(python, reports, strict=True):
        problems += [f"{file}: jobs.{job.name}.python: {line}" for line in _of_target(job, report)]
    warnings += [f"{file}: {line}" for line in lacking(definitions)]
    for schedule in project.schedules.values():
        doubts = schedule_doubts.warnings(schedule, now=utc_now())
        warnings += [f"{file}: schedules.{schedule.name}.{line}" for line in doubts]
    return Checked(
        jobs=len(project.jobs),
        pipelines=len(project.pipelines),
        schedules=len(project.schedules),
        problems=problems,
        warnings=warnings,
    )


def _query(job: Job, body: PythonBody, definitions: Definitions) -> TargetQuery:
    try:
        env, _ = definitions.environment(job)
    except EnvFileError:
        env = definitions.environment_without_file(job)
    return TargetQuery(
        target=body.target,
        interpreter=definitions.interpreter(),
        pythonpath=tuple(map(str, definitions.project.pythonpath)),
        dir=str(job.dir),
        env=env,
    )


def _of_target(job: Job, report: TargetReport) -> list[str]:
    """Where a function's signature and the declared parameters don't agree."""
    if report.error is not None:
        return [report.error]
    if report.parameters is None:
        return []
    takes = {each.name: each for each in report.parameters if each.kind in ("either", "keyword")}
    declared = {param.name: param for param in job.params}
    lines = [
        f"{report.target} takes no argument {quoted(name)}{did_you_mean(name, takes)}, which params declares"
        for name in declared
        if name not in takes and not report.takes_any
    ]
    lines += [
        f"{report.target} needs the argument {quoted(name)}, which params {_how(declared.get(name) is not None)}"
        for name, each in takes.items()
        if _needed(each) and (name not in declared or not _always_given(job, name))
    ]
    lines += [
        f"{report.target} takes {quoted(each.name)} by position only; parameters are given by name"
        for each in report.parameters
        if each.kind == "positional" and not each.has_default
    ]
    return lines


def _needed(parameter: TargetParameter) -> bool:
    # `input` is what a pipeline hands on, and hueyctl gives it by itself.
    return not parameter.has_default and parameter.name != "input"


def _always_given(job: Job, name: str) -> bool:
    param = job.param(name)
    return param is not None and (param.required or param.default is not None)


def _how(declared: bool) -> str:
    return "leaves out where it has no value: make it required or give it a default" if declared else "doesn't declare"
