"""One attempt, from its claim to its settlement.

Promises: whatever the body does, `settlement` gives exactly one answer; Huey's `execute` gives the verdict (done,
retry, final) and nothing else; secrets are masked in every text that is stored.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Protocol

import msgspec
from huey.exceptions import CancelExecution, TaskTimeout

from hueyctl.engine.definitions import Definitions, EnvFileError
from hueyctl.model.command import render
from hueyctl.model.definition import CommandBody, Job, PythonBody, ScriptBody
from hueyctl.model.handover import as_json, as_stdin, is_text
from hueyctl.model.instant import iso
from hueyctl.model.outcome import (
    AnyOutcome,
    Exited,
    Lost,
    NotStarted,
    Raised,
    Returned,
    Stopped,
    TimedOut,
    describe,
    exit_code,
)
from hueyctl.model.params import completed, environment
from hueyctl.model.run import Run
from hueyctl.model.transition import Done, Final, Printed, Release, Settlement, Verdict
from hueyctl.process.output import end_of, whole
from hueyctl.process.spec import AttemptSpec, Ended, ProcessSpec, PythonSpec, StopReason
from hueyctl.storage.place import Place
from hueyctl.storage.store import Claim

# Of each stream, where it is to be seen from other machines too.
KEPT_MAX = 64 * 1024
# How long an attempt waits for a full disk to take what it is handed, and between tries.
SPACE_PATIENCE_S = 30.0
SPACE_PAUSE_S = 0.5


class _CalledOff(Exception):
    """What an attempt that has not begun is stopped by."""

    def __init__(self, reason: StopReason) -> None:
        self.reason: StopReason = reason


class JobFailed(Exception):
    """What the body of a failed attempt raises, for Huey to judge."""


class Runner(Protocol):
    """What performs bodies; the guard's client is one."""

    def run(self, spec: AttemptSpec) -> Ended:
        """Perform it and return when it has ended."""


class Attempt:
    """A claimed run on its way through Huey."""

    def __init__(
        self, claim: Claim, definitions: Definitions, place: Place, guard: Callable[[], Runner], *, start_by: float
    ) -> None:
        """`start_by`: the monotonic time from which on the run may be another worker's, if it hasn't begun before."""
        self.claim = claim
        self.run: Run = claim.run
        self.definitions = definitions
        self.job: Job = definitions.project.jobs[claim.run.job]
        # What was declared, with a default, after the run was accepted.
        self.params = completed(self.job.params, claim.run.message.params)
        self.place = place
        self.thread: threading.Thread | None = None  # of Huey's, which has taken it
        self.took_s = math.inf  # to perform it
        self.outcome: AnyOutcome | None = None
        self.verdict: Verdict | None = None
        self.result: bytes | None = None
        self.result_error: str | None = None
        self.remarks: dict[str, str] = {}
        self._guard = guard
        self._start_by = start_by
        self.begun = False
        """May anything of its body have run?"""
        self._waiting: threading.Event | None = None  # for space; set: it is to stop that
        self._called_off: StopReason | None = None
        self.in_thread = isinstance(self.job.body, PythonBody) and self.job.body.isolation == "thread"
        """Does the body run inside the worker, where nothing can stop it?"""

    @property
    def asked_for(self) -> Run:
        """The run that somebody or a schedule has asked for: that of its pipeline, or it itself."""
        return self.claim.pipeline or self.run

    def retry_delay(self) -> timedelta:
        """The pause before the next attempt, were this one to fail: the delay times the back-off to the power of the
        retries used before, up to `retry_max_delay`."""
        job = self.job
        if not job.retry_delay:
            return job.retry_delay
        allowed = job.retries if self.run.message.retries is None else self.run.message.retries
        used = max(0, allowed - (self.run.retries_left or 0))
        try:
            seconds = job.retry_delay.total_seconds() * job.retry_backoff**used
        except OverflowError:
            return job.retry_max_delay
        return min(timedelta(seconds=min(seconds, 1e9)), max(job.retry_max_delay, job.retry_delay))

    # -- performed on one of Huey's threads, inside its execute() ---------------------------------------------------

    def perform(self) -> None:
        """Run the body to its end, and say by returning or raising what Huey is to make of it."""
        began = time.monotonic()
        try:
            outcome = self._outcome()
        except Exception as exc:  # the worker has too many files open, say, or there is a bug of ours
            self.outcome = Raised(f"hueyctl couldn't run it: {type(exc).__name__}: {exc}")
            raise
        self.outcome, self.took_s = outcome, time.monotonic() - began
        match outcome:
            case Returned():
                return
            case Exited(code) if code in self.job.success_codes:
                return
            case TimedOut():
                raise TaskTimeout(describe(outcome))
            case Stopped("interrupted" | "stale"):
                # Stale: its end will be refused. Should its token hold after all, it is given back.
                raise KeyboardInterrupt
            case Stopped():
                raise CancelExecution(retry=False)
            case Lost():
                raise JobFailed(describe(outcome))
        codes = self.job.retry_exit_codes
        if codes is not None and exit_code(outcome) not in codes:
            raise CancelExecution(retry=False)
        raise JobFailed(describe(outcome))

    def _outcome(self) -> AnyOutcome:
        if self.in_thread:
            if time.monotonic() >= self._start_by:
                return Stopped("stale")
            self.begun = True
            outcome = _inline()(self)
            if isinstance(outcome, Returned):
                self._keep_returned(outcome)
            return outcome
        try:
            spec = self.spec()
            self._hand_over(spec)
        except EnvFileError as exc:
            return NotStarted(126, str(exc))
        except OSError as exc:
            return NotStarted(126, f"its input can't be written: {exc}")
        except _CalledOff as exc:
            return Stopped(exc.reason)
        self.begun = True
        if self._called_off is not None:  # just when there was space again
            self.begun = False
            return Stopped(self._called_off)
        try:
            ended = self._guard().run(spec)
        finally:
            self._take_away(spec)
        self.begun, self.remarks = ended.begun, ended.remarks
        match ended.outcome:
            case Returned():
                self._keep_returned(ended.outcome)
            case Exited(code) if code in self.job.success_codes and isinstance(spec.body, ProcessSpec):
                self._keep_printed(ended)
        return ended.outcome

    def _hand_over(self, spec: AttemptSpec) -> None:
        """Write what the attempt is handed to the file in which its body looks for it. On a full disk it is waited for
        space: that is not the job's fault.

        Raises:
            OSError: it can't be written.
            _CalledOff: it was stopped meanwhile, or it is too late to begin.
        """
        inputs, jobs = self.claim.inputs, self.definitions.project.jobs
        if isinstance(spec.body, PythonSpec) and spec.body.input is not None:
            path, data = spec.body.input, as_json(inputs, jobs)
        elif spec.stdin is not None:
            path, data = spec.stdin, as_stdin(inputs, jobs)
        else:
            return
        patient_until = time.monotonic() + SPACE_PATIENCE_S
        while True:
            try:
                os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
                with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
                    file.write(data)
                return
            except OSError as exc:
                if exc.errno not in {errno.ENOSPC, errno.EDQUOT} or time.monotonic() >= patient_until:
                    raise
            if time.monotonic() >= self._start_by:
                raise _CalledOff("stale")
            self._waiting = self._waiting or threading.Event()
            if self._waiting.wait(SPACE_PAUSE_S):
                raise _CalledOff(self._called_off or "interrupted")

    def call_off(self, reason: StopReason) -> bool:
        """Stop it where it waits for space; False: it doesn't, or no longer."""
        if self._waiting is None:
            return False
        self._called_off = reason  # before it is looked whether it has begun, as that says so before it looks for this
        self._waiting.set()
        return not self.begun

    def _take_away(self, spec: AttemptSpec) -> None:
        if self.claim.inputs:
            path = self.place.input(self.run.id, self.run.attempt)
            with contextlib.suppress(OSError):  # what stays is pruned with the run
                path.unlink()
                path.parent.rmdir()

    def _keep_returned(self, returned: Returned) -> None:
        self.result = None if returned.result is None else returned.result.encode()
        self.result_error = returned.result_error
        if self.result is not None and len(self.result) > self.definitions.project.worker.result_max:
            self.result_error = self._too_large(len(self.result))
            self.result = None

    def _keep_printed(self, ended: Ended) -> None:
        limit = self.definitions.project.worker.result_max
        if ended.stdout_bytes > limit + 1:  # its last newline doesn't count
            self.result_error = self._too_large(ended.stdout_bytes)
            return
        text = b""
        if ended.stdout_bytes:
            try:
                text = whole(self.place.stdout(self.run.id, self.run.attempt))
            except OSError as exc:
                self.result_error = f"its output could not be read back: {exc.strerror}"
                return
        if len(text) < ended.stdout_bytes:
            self.result_error = "its output could not be kept whole"
            return
        if text.endswith(b"\n") and is_text(text):  # of an archive it is as good as any other byte
            text = text[:-1]
        if len(text) > limit:
            self.result_error = self._too_large(len(text))
        elif self.job.result == "json":
            try:
                msgspec.json.decode(text)
                self.result = text
            except (msgspec.DecodeError, UnicodeDecodeError) as exc:
                self.result_error = f"its stdout is not JSON: {exc}"
        else:
            self.result = text

    def _too_large(self, size: int) -> str:
        return f"the result has {size} bytes, more than result_max ({self.definitions.project.worker.result_max})"

    # -- what the guard is asked ------------------------------------------------------------------------------------

    def spec(self) -> AttemptSpec:
        """This attempt as the guard takes it.

        Raises:
            EnvFileError: the job's `env_file` can't be read.
        """
        run, job, project = self.run, self.job, self.definitions.project
        env, fingerprint = self.definitions.environment(job)
        stdout, stderr, progress = self.place.names(run.id, run.attempt)
        run_env = self.run_env(progress)
        given = str(self.place.input(run.id, run.attempt)) if self.claim.inputs else None
        timeout = run.message.timeout_s
        if timeout is None and job.timeout is not None:
            timeout = job.timeout.total_seconds()
        body: ProcessSpec | PythonSpec
        match job.body:
            case PythonBody(target=target):
                body = PythonSpec(
                    target=target,
                    interpreter=self.definitions.interpreter(),
                    pythonpath=tuple(map(str, project.pythonpath)),
                    params=self.params,
                    input=given,
                    definition=fingerprint,
                    max_runs=project.worker.max_runs_per_child,
                    result_max=project.worker.result_max,
                )
            case CommandBody(argv=argv):
                body = ProcessSpec(argv=render(argv, self.params))
                run_env |= environment(self.params)
            case ScriptBody(text=text, shell=shell):
                body = ProcessSpec(argv=(*shell, text))
                run_env |= environment(self.params)
        return AttemptSpec(
            token=self.claim.token,
            run=run.id,
            body=body,
            dir=str(job.dir),
            env=env,
            run_env=run_env,
            stdin=None if isinstance(body, PythonSpec) else given,
            stdout=stdout,
            stderr=stderr,
            progress=progress,
            timeout=timeout,
            kill_after=job.kill_after.total_seconds(),
            output_max=project.worker.output_max,
            start_by=self._start_by,
        )

    def run_env(self, progress: str) -> dict[str, str]:
        """The variables that tell a body which run it is, and the file to write its progress to."""
        run = self.run
        env = {
            "HUEYCTL_RUN_ID": run.id,
            "HUEYCTL_JOB": run.job,
            "HUEYCTL_ATTEMPT": str(run.attempt),
            "HUEYCTL_QUEUE": run.queue,
            "HUEYCTL_FILE": str(self.definitions.project.path),
            "HUEYCTL_TRIGGER": run.trigger,
            "HUEYCTL_PROGRESS": progress,
        }
        if self.asked_for.schedule is not None:
            env["HUEYCTL_SCHEDULE"] = self.asked_for.schedule
        if self.asked_for.scheduled_at is not None:
            env["HUEYCTL_SCHEDULED_AT"] = iso(self.asked_for.scheduled_at)
        return env

    # -- the end ----------------------------------------------------------------------------------------------------

    def escaped(self, exc: BaseException) -> None:
        """Something got out of Huey's execute: the verdict it gave stands, and without one the attempt failed."""
        if self.outcome is None or self.verdict is None:
            self.outcome = Raised(f"{type(exc).__name__}: {exc}")
            self.verdict = Final()

    def settlement(self) -> Settlement:
        """How it ended, for the store. Without a verdict of Huey's it was interrupted, and is given back."""
        outcome = self.outcome or Stopped("interrupted")
        verdict = self.verdict or Release(started=self.begun)
        if isinstance(verdict, Done):
            verdict = Done(self.result, self.result_error)
        elif isinstance(verdict, Release) and not isinstance(outcome, Stopped):
            verdict = Final()  # a pre-execute hook of the user's canceled it, after it had an outcome or before
        return Settlement(
            n=self.run.n,
            token=self.claim.token,
            verdict=verdict,
            outcome=self._masked(outcome),
            ended_at=datetime.now(UTC),
            claimed=self.run,
            printed=None if self.place.address is None else self._printed(),
            remarks={name: self.mask(text) for name, text in self.remarks.items()},
        )

    def _printed(self) -> Printed | None:
        """The ends of what it has printed, for those who look from other machines."""
        paths = self.place.stdout(self.run.id, self.run.attempt), self.place.stderr(self.run.id, self.run.attempt)
        stdout, stderr = (end_of(path, KEPT_MAX) for path in paths)
        return Printed(stdout, stderr) if stdout or stderr else None

    def _masked(self, outcome: AnyOutcome) -> AnyOutcome:
        match outcome:
            case Raised(error):
                return Raised(self.mask(error))
            case NotStarted(code, reason):
                return NotStarted(code, self.mask(reason))
            case _:
                return outcome

    def mask(self, text: str) -> str:
        """`text` with this run's secrets replaced."""
        message = self.run.message
        for name in message.secrets:
            value = message.params.get(name)
            for secret in value if isinstance(value, list) else [value]:
                if secret is not None and secret != "" and not isinstance(secret, bool):
                    text = text.replace(str(secret), "***")
        return text


@cache
def _inline() -> Callable[[Attempt], AnyOutcome]:
    # Imported when it is needed: it is the one place where user code enters the worker.
    from hueyctl.engine.inline import call_in_thread

    return call_in_thread


def not_taken(claim: Claim) -> Settlement:
    """The release of a claim that no thread took."""
    return Settlement(
        n=claim.run.n,
        token=claim.token,
        verdict=Release(started=False),
        outcome=Stopped("interrupted"),
        ended_at=datetime.now(UTC),
        claimed=claim.run,
    )


def given_back(attempt: Attempt) -> Settlement:
    """The release of an attempt that its worker can't wait for any longer; done is what Huey has judged done."""
    if isinstance(attempt.verdict, Done):
        return attempt.settlement()
    return Settlement(
        n=attempt.run.n,
        token=attempt.claim.token,
        verdict=Release(started=attempt.begun),
        outcome=Stopped("interrupted"),
        ended_at=datetime.now(UTC),
        claimed=attempt.run,
    )


def lost(attempt: Attempt, cause: str) -> Settlement:
    """The settlement of an attempt whose end nobody saw."""
    return Settlement(
        n=attempt.run.n,
        token=attempt.claim.token,
        verdict=Final(),
        outcome=Lost(cause),
        ended_at=datetime.now(UTC),
        claimed=attempt.run,
    )


def python_path_for_threads(paths: list[str]) -> None:
    """Make `pythonpath` importable in this process, for jobs that run in its threads."""
    for path in reversed(paths):
        path = os.path.abspath(path)
        if path not in sys.path:
            sys.path.insert(0, path)
