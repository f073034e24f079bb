"""`hueyctl run`: one attempt, here and now, without the store. Nothing is locked, nothing is recorded.

It runs in the foreground of the terminal, on hueyctl's own streams, and exits as `timeout` and `docker run` do: with
the command's code, 124 timed out, 126/127 can't start, 128+n ended by signal n.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import msgspec

from hueyctl.engine.definitions import Definitions, EnvFileError
from hueyctl.model.command import render
from hueyctl.model.definition import CommandBody, Job, Project, PythonBody, ScriptBody
from hueyctl.model.mask import Mask
from hueyctl.model.outcome import TimedOut, describe
from hueyctl.model.params import environment
from hueyctl.process import child
from hueyctl.process.client import become_subreaper, kill_descendants
from hueyctl.process.launch import CannotStart, find

TIMED_OUT, CANT_START, NO_SUCH_PROGRAM = 124, 126, 127


def run_once(project: Project, job: Job, params: Mapping[str, Any]) -> int:
    """Run `job` with these (resolved) parameters; returns the exit code. What it left running is killed."""
    try:
        env, _ = Definitions(project, os.environ).environment(job)
    except EnvFileError as exc:
        return _cannot_start(CANT_START, str(exc))
    hidden = Mask(params.get(param.name) for param in job.params if param.secret)
    become_subreaper()
    with tempfile.TemporaryDirectory(prefix="hueyctl-run-") as folder, tempfile.TemporaryFile() as call:
        env |= {
            "HUEYCTL_RUN_ID": str(uuid.uuid4()),
            "HUEYCTL_JOB": job.name,
            "HUEYCTL_ATTEMPT": "1",
            "HUEYCTL_QUEUE": job.queue,
            "HUEYCTL_FILE": str(project.path),
            "HUEYCTL_TRIGGER": "manual",
            "HUEYCTL_PROGRESS": str(Path(folder) / "progress"),
        }
        argv = _argv(project, job, dict(params), env, call)
        try:
            process = subprocess.Popen(
                argv,
                executable=find(argv[0], env.get("PATH")),
                cwd=job.dir,
                env=env,
                stdin=subprocess.DEVNULL,
                pass_fds=[call.fileno()],
            )
        except CannotStart as exc:
            return _cannot_start(exc.outcome.code, hidden.text(exc.outcome.reason))
        except FileNotFoundError as exc:
            if not job.dir.is_dir():
                return _cannot_start(CANT_START, f"its folder can't be entered: {job.dir}")
            return _cannot_start(NO_SUCH_PROGRAM, hidden.text(f"{argv[0]}: {exc.strerror}"))
        except (OSError, ValueError) as exc:
            return _cannot_start(CANT_START, hidden.text(f"{argv[0]}: {getattr(exc, 'strerror', None) or exc}"))
        try:
            return _wait(process, job)
        finally:
            kill_descendants()


def _argv(project: Project, job: Job, params: dict[str, Any], env: dict[str, str], call: IO[bytes]) -> tuple[str, ...]:
    match job.body:
        case CommandBody(argv=argv):
            env |= environment(params)
            return render(argv, params)
        case ScriptBody(text=text, shell=shell):
            env |= environment(params)
            return (*shell, text)
        case PythonBody(target=target):
            message = {
                "token": "",
                "target": target,
                "params": params,
                "pythonpath": [str(path) for path in project.pythonpath],
                "dir": str(job.dir),
                "run_env": {},
                "result_max": project.worker.result_max,
            }
            call.write(msgspec.json.encode(message))
            call.flush()
            call.seek(0)
            interpreter = str(project.interpreter or sys.executable)
            return (interpreter, str(Path(child.__file__)), "--call", str(call.fileno()))


def _wait(process: subprocess.Popen[bytes], job: Job) -> int:
    """Its end, as an exit code. Signals are the job's, and we wait for what it makes of them. Ctrl-C reaches it by
    itself, from the terminal that it has with us; told to us alone, elsewhere, we hand it on."""
    interrupt = signal.signal(signal.SIGINT, lambda number, frame: _hand_on(process, number))
    if interrupt is signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupt)
    terminate = signal.signal(signal.SIGTERM, lambda number, frame: process.send_signal(number))
    try:
        code = process.wait(None if job.timeout is None else job.timeout.total_seconds())
    except subprocess.TimeoutExpired:
        assert job.timeout is not None
        process.terminate()
        try:
            process.wait(job.kill_after.total_seconds())
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        print(f"hueyctl: {job.name} {describe(TimedOut(job.timeout.total_seconds()))}", file=sys.stderr)
        return TIMED_OUT
    finally:
        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGTERM, terminate)
    return code if code >= 0 else 128 - code


def _hand_on(process: subprocess.Popen[bytes], number: int) -> None:
    if not _in_front():
        process.send_signal(number)


def _in_front() -> bool:
    """Are we what the terminal's keys reach?"""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _cannot_start(code: int, reason: str) -> int:
    print(f"hueyctl: not started: {reason}", file=sys.stderr)
    return code
