"""What `check` sees beyond `jobs.toml` itself: Python targets, shells, programs, and what schedules may not mean.

Only children import user code.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping

import msgspec

from hueyctl.app.clock import utc_now
from hueyctl.engine.definitions import Definitions, EnvFileError
from hueyctl.model import schedule_doubts
from hueyctl.model.definition import CommandBody, Job, Project, PythonBody, ScriptBody
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
    jobs = project.jobs.values()
    environments = _environments(project, environ, warnings)
    python = [(job, job.body) for job in jobs if isinstance(job.body, PythonBody)]
    reports = check_targets([_query(project, job, body, environments[job.name]) for job, body in python])
    for (job, _), report in zip(python, reports, strict=True):
        problems += [f"{file}: jobs.{job.name}.python: {line}" for line in _of_target(job, report)]
    for job in jobs:
        path = environments[job.name].get("PATH", os.defpath)
        match job.body:
            case CommandBody(argv=argv) if _missing(argv[0], job, path):
                warnings.append(f"{file}: jobs.{job.name}.command: there is no program {quoted(argv[0])} here")
            case ScriptBody(shell=shell) if _missing(shell[0], job, path):
                warnings.append(f"{file}: jobs.{job.name}.shell: there is no shell {quoted(shell[0])} here")
        if not job.dir.is_dir():
            warnings.append(f"{file}: jobs.{job.name}.dir: there is no folder {quoted(str(job.dir))} here")
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


def _environments(project: Project, environ: Mapping[str, str], warnings: list[str]) -> dict[str, dict[str, str]]:
    """What a worker started here would give each job; an `env_file` that can't be read becomes a warning."""
    definitions = Definitions(project, environ)
    found = {}
    for job in project.jobs.values():
        try:
            found[job.name], _ = definitions.environment(job)
        except EnvFileError as exc:
            found[job.name] = {**(environ if job.inherit_env else {}), **job.env}
            warnings.append(f"{project.path.name}: jobs.{job.name}.env_file: {str(exc).removeprefix('env_file ')}")
    return found


def _query(project: Project, job: Job, body: PythonBody, env: dict[str, str]) -> TargetQuery:
    return TargetQuery(
        target=body.target,
        interpreter=str(project.interpreter or sys.executable),
        pythonpath=tuple(map(str, project.pythonpath)),
        dir=str(job.dir),
        env=env,
    )


def _missing(program: str, job: Job, path: str) -> bool:
    if "{" in program or "$" in program:
        return False  # known only when it runs
    if os.sep in program:
        return not os.access(job.dir / program, os.X_OK)
    return shutil.which(program, path=path) is None


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
