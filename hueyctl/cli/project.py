"""`hueyctl init`, `check` and `jobs`: the file."""

from __future__ import annotations

import os
from pathlib import Path

from hueyctl.cli.answer import Answer, Line, Lines, Table
from hueyctl.cli.settings import settings
from hueyctl.cli.words import count, shown_default
from hueyctl.errors import ConfigError, Refused
from hueyctl.model.definition import Param


def init() -> Answer:
    """Start a jobs.toml in this folder."""
    from hueyctl.config import host_timezone, starter

    path = Path(settings.file or os.environ.get("HUEYCTL_FILE") or "jobs.toml")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(starter(host_timezone()))
    except FileExistsError as exc:
        raise Refused(f"{path} is there already", hint="`hueyctl check` validates it") from exc
    except OSError as exc:
        raise Refused(f"{path} can't be written: {exc.strerror}") from exc
    return Answer(
        documents=[{"file": str(path.absolute())}],
        blocks=[Line(f"wrote {path}")],
        notes=["next: `hueyctl worker start` in one terminal, `hueyctl enqueue hello` in another"],
    )


def check() -> Answer:
    """Validate the jobs.toml, and look at the programs and functions that it names."""
    from hueyctl.app.check import check as check_project

    project = settings.session().project
    checked = check_project(project, environ=os.environ)
    if checked.problems:
        raise ConfigError([*checked.problems, *checked.warnings])
    found = {
        "file": str(project.path),
        "jobs": checked.jobs,
        "schedules": checked.schedules,
        "warnings": checked.warnings,
    }
    defined = count(checked.jobs, "job") + (f", {count(checked.schedules, 'schedule')}" if checked.schedules else "")
    return Answer(
        documents=[{"check": found}],
        blocks=[Line(f"{project.path.name}: {defined}, ok")],
        notes=checked.warnings,
    )


def jobs() -> Answer:
    """List the jobs that the jobs.toml defines."""
    from hueyctl.app.detail import public_job

    project = settings.session().project
    defined = [project.jobs[name] for name in sorted(project.jobs)]
    rows = [
        (job.name, job.kind, job.queue, str(job.priority), " ".join(map(_param, job.params)), job.description)
        for job in defined
    ]
    columns = ("job", "kind", "queue", "priority", "params", "description")
    return Answer(
        documents=[{"jobs": [public_job(job) for job in defined]}],
        blocks=[Table(columns, rows)] if rows else [Lines(())],
        notes=[] if rows else [f"{project.path.name} defines no jobs"],
    )


def _param(param: Param) -> str:
    if param.required:
        return param.name
    return f"[{param.name}={shown_default(param)}]"
