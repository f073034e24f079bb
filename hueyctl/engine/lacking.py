"""What jobs name and isn't here: programs, shells, folders, env files. Looked for without running anything.

A worker's PATH is seldom that of the shell in which `hueyctl check` was right: systemd and cron give their own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection

from hueyctl.engine.definitions import Definitions, EnvFileError
from hueyctl.model.definition import CommandBody, Job, ScriptBody
from hueyctl.model.wording import quoted


def lacking(definitions: Definitions, queues: Collection[str] | None = None) -> list[str]:
    """What a worker in this place would not find, a line each, as `jobs.NAME.KEY: …`; of jobs of these queues alone
    (None: of all)."""
    jobs = definitions.project.jobs.values()
    return [line for job in jobs if queues is None or job.queue in queues for line in _of(job, definitions)]


def _of(job: Job, definitions: Definitions) -> list[str]:
    lines = []
    try:
        env, _ = definitions.environment(job)
    except EnvFileError as exc:
        env = definitions.environment_without_file(job)
        lines.append(f"jobs.{job.name}.env_file: {str(exc).removeprefix('env_file ')}")
    path = env.get("PATH", os.defpath)
    match job.body:
        case CommandBody(argv=argv) if _missing(argv[0], job, path):
            lines.append(f"jobs.{job.name}.command: there is no program {_shown(argv[0])} here")
        case ScriptBody(shell=shell) if _missing(shell[0], job, path):
            lines.append(f"jobs.{job.name}.shell: there is no shell {_shown(shell[0])} here")
    if not job.dir.is_dir():
        lines.append(f"jobs.{job.name}.dir: there is no folder {job.dir} here")
    return lines


def _missing(program: str, job: Job, path: str) -> bool:
    if "{" in program or "$" in program:
        return False  # known only when it runs
    if os.sep in program:
        return not os.access(job.dir / program, os.X_OK)
    return shutil.which(program, path=path) is None


def _shown(program: str) -> str:
    return program if os.sep in program else quoted(program)  # of a path the end says most, which is cut there
