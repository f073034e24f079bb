"""`hueyctl init`, `check`, `jobs` and `schema`: the file."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from hueyctl.cli.answer import Answer, Block, Line, Lines, Table
from hueyctl.cli.settings import settings
from hueyctl.cli.words import beginning, count, shown_default
from hueyctl.errors import ConfigError, Refused, UsageError
from hueyctl.model.definition import Param
from hueyctl.model.wording import quoted


def init(
    crontab: Annotated[
        str | None, typer.Option("--crontab", metavar="FILE", help="From the lines of this crontab (-: stdin).")
    ] = None,
    system: Annotated[
        bool, typer.Option("--system", help="That crontab has a column for the user, as /etc/crontab has.")
    ] = False,
) -> Answer:
    """Start a jobs.toml in this folder, or make one of a crontab. What can't be carried over is said."""
    from hueyctl.config import host_timezone, starter

    if crontab is not None:
        return _init_from_crontab(crontab, system=system)
    if system:
        raise UsageError("--system goes with --crontab")
    path = _write(starter(host_timezone()))
    return Answer(
        documents=[{"file": str(path.absolute())}],
        blocks=[Line(f"wrote {path}")],
        notes=["next: `hueyctl worker start` in one terminal, `hueyctl enqueue hello` in another"],
    )


def _init_from_crontab(source: str, *, system: bool) -> Answer:
    from hueyctl.app.session import who
    from hueyctl.config import host_timezone
    from hueyctl.config.crontab import from_crontab

    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        text = data.decode()
    except OSError as exc:
        raise UsageError(f"--crontab: {quoted(source)} can't be read: {exc.strerror}") from exc
    except (UnicodeDecodeError, ValueError) as exc:
        raise UsageError(f"--crontab: {quoted(source)} is not valid UTF-8 text") from exc
    system = system or source == "/etc/crontab" or source.startswith("/etc/cron.d/")
    made = from_crontab(text, timezone=host_timezone(), system=system, user=who().partition("@")[0])
    name = "stdin" if source == "-" else source
    notes = [f"{name}: line {number}: {note}" for number, note in made.notes]
    if not made.jobs:
        raise Refused("; ".join([f"{name} has no line that could be carried over", *notes]))
    path = _write(made.text)
    said = [{"line": number, "note": note} for number, note in made.notes]
    return Answer(
        documents=[{"file": str(path.absolute()), "jobs": made.jobs, "notes": said}],
        blocks=[Line(f"wrote {path}: {count(made.jobs, 'job')}")],
        remarks=notes,
        notes=[
            "next: `hueyctl check`, `hueyctl schedule list`; take the lines out of the crontab before a worker starts"
        ],
    )


def _write(text: str) -> Path:
    path = Path(settings.file or os.environ.get("HUEYCTL_FILE") or "jobs.toml")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as exc:
        raise Refused(f"{path} is there already", hint="`hueyctl check` validates it") from exc
    except OSError as exc:
        raise Refused(f"{path} can't be written: {exc.strerror}") from exc
    return path


def check() -> Answer:
    """Validate the jobs.toml, and the programs and functions it names."""
    from hueyctl.app.check import check as check_project

    try:
        project = settings.session().project
    except ConfigError as exc:
        later = "the programs, functions and folders that it names are looked at once that is right"
        raise ConfigError(exc.problems, hint=exc.hint or later) from exc
    checked = check_project(project, environ=os.environ)
    begin = f"{project.path.name}: "
    doubts = [f"{begin}warning: {line.removeprefix(begin)}" for line in checked.warnings]
    if checked.problems:
        raise ConfigError([*checked.problems, *doubts])
    found = {
        "file": str(project.path),
        "jobs": checked.jobs,
        "pipelines": checked.pipelines,
        "schedules": checked.schedules,
        "warnings": checked.warnings,
    }
    others = [(checked.pipelines, "pipeline"), (checked.schedules, "schedule")]
    defined = [count(checked.jobs, "job"), *(count(number, kind) for number, kind in others if number)]
    return Answer(
        documents=[{"check": found}],
        blocks=[Line(f"{project.path.name}: {', '.join(defined)}, ok")],
        remarks=doubts,
    )


def jobs() -> Answer:
    """List the jobs and pipelines that the jobs.toml defines."""
    from hueyctl.app.detail import public_job
    from hueyctl.app.pipelines import in_words, public_pipeline

    project = settings.session().project
    defined = [project.jobs[name] for name in sorted(project.jobs)]
    rows = [
        (job.name, job.kind, job.queue, str(job.priority), " ".join(map(_param, job.params)), job.description)
        for job in defined
    ]
    columns = ("job", "kind", "queue", "priority", "params", "description")
    blocks: list[Block] = [Table(columns, rows)] if rows else [Lines(())]
    pipelines = [project.pipelines[name] for name in sorted(project.pipelines)]
    if pipelines:
        lines = [
            (each.name, beginning(in_words(each.steps)), " ".join(map(_param, each.params)), each.description)
            for each in pipelines
        ]
        blocks.append(Table(("pipeline", "steps", "params", "description"), lines, "pipelines"))
    return Answer(
        documents=[
            {
                "jobs": [public_job(job) for job in defined],
                "pipelines": [public_pipeline(project, each) for each in pipelines],
            }
        ],
        blocks=blocks,
        notes=[] if rows else [f"{project.path.name} defines no jobs"],
    )


def schema() -> Answer:
    """Print the JSON Schema of jobs.toml, for editors.

    hueyctl schema > jobs.schema.json writes it beside the file, whose first line is then #:schema ./jobs.schema.json
    """
    import msgspec

    from hueyctl.config.schema import schema as schema_of_file

    text = msgspec.json.format(msgspec.json.encode(schema_of_file()), indent=2)
    return Answer(content=text + b"\n")


def _param(param: Param) -> str:
    if param.required:
        return param.name
    return f"[{param.name}={shown_default(param)}]"
