"""`[jobs.NAME]` and `[defaults]` become `Job`s."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from hueyctl.config import declared
from hueyctl.config.keys import FOREIGN, read
from hueyctl.config.reading import (
    At,
    Key,
    Keys,
    argv,
    duration,
    environment,
    exit_codes,
    filled_text,
    flag,
    integer,
    name,
    named,
    number,
    one_of,
    path,
    some_time,
    table,
    takes,
    text,
)
from hueyctl.model.command import alone, placeholders
from hueyctl.model.definition import Body, CommandBody, Job, Param, PythonBody, RateLimit, ScriptBody
from hueyctl.model.duration import parse_duration
from hueyctl.model.wording import nearest, quoted, shown

KINDS = ("command", "script", "python")
SHELL = ("bash", "-eo", "pipefail", "-c")

# What a key of one kind of job means nothing for, and why: an error where a job has it, ignored where defaults do.
ONLY_FOR = {
    "shell": ({"script"}, "only a script has a shell"),
    "result": ({"command", "script"}, "a Python job's result is what the function returns"),
    "isolation": ({"python"}, "only Python jobs can run in the worker's own process"),
}
NOT_IN_A_THREAD = ("dir", "env", "env_file", "inherit_env", "timeout", "kill_after")

_GIVEN_BY_HUEYCTL = {
    f"HUEYCTL_{word}"
    for word in ("RUN_ID", "JOB", "ATTEMPT", "QUEUE", "FILE", "SCHEDULE", "SCHEDULED_AT", "TRIGGER", "PROGRESS")
}
_RATE = r"([0-9]{1,9}) ?/ ?(\S+)"


# Names as loose as a regular expression has to be: an identifier may have letters of any script.
@takes({"type": "string", "pattern": r"^[^\s.:]+(?:\.[^\s.:]+)*:[^\s.:]+$"})
def _target(at: At, value: object) -> str | None:
    found = filled_text(at, value)
    if found is None:
        return None
    if _is_target(found):
        return found
    module, _, function = found.partition(":")
    guess = f"{module.removesuffix('.py').replace('/', '.')}:{function}" if function else _with_colon(module)
    hint = f"; did you mean {quoted(guess)}?" if _is_target(guess) else ""
    at.wrong(f'expected a function like "package.module:function", got {shown(found)}{hint}')
    return None


def _is_target(text: str) -> bool:
    module, _, function = text.partition(":")
    return function.isidentifier() and all(part.isidentifier() for part in module.split("."))


def _with_colon(dotted: str) -> str:
    module, _, function = dotted.rpartition(".")
    return f"{module}:{function}" if module else dotted


@takes({"type": "string", "pattern": f"^{_RATE}$"})
def _rate(at: At, value: object) -> RateLimit | None:
    match = re.fullmatch(_RATE, value) if isinstance(value, str) else None
    if match:
        try:
            per = parse_duration(f"1{match[2]}" if match[2] in ("s", "m", "h", "d") else match[2])
        except ValueError:
            per = timedelta(0)
        if per and int(match[1]):
            return RateLimit(count=int(match[1]), per=per)
    at.wrong(f'expected a limit like "10/1m" (10 in any minute), got {shown(value)}')
    return None


JOB: Keys = {
    "description": Key(text, "What it does, in a line; `hueyctl jobs` shows it."),
    "command": Key(argv, "A program and its arguments, no shell; {name} in an element is replaced by the parameter."),
    "script": Key(filled_text, "Text for the shell, never rewritten; parameters arrive as variables PARAM_<NAME>."),
    "python": Key(_target, "package.module:function, called with the parameters as keyword arguments; returns JSON."),
    "shell": Key(argv, "The program that gets the script as its last argument."),
    "isolation": Key(
        one_of("process", "thread"),
        "thread: a Python job runs inside the worker, and can't be stopped; only for tiny trusted ones.",
    ),
    "params": Key(declared.params, "The parameters that it takes: name = default, or a table that says more."),
    "dir": Key(path, "Where it runs; otherwise in the folder of this file."),
    "env": Key(environment, "Variables of its environment."),
    "env_file": Key(path, "A file of NAME=value lines, more variables of its environment."),
    "inherit_env": Key(flag, "Whether it gets the worker's environment (never the enqueuer's)."),
    "queue": Key(name, "The line of runs that it waits in."),
    "priority": Key(integer(), "Higher first; oldest first within it."),
    "retries": Key(integer(0), "How often it is tried again after it failed."),
    "retry_delay": Key(duration, "The pause before the first retry."),
    "retry_backoff": Key(number(1), "How many times as long as the one before each further pause is."),
    "retry_max_delay": Key(duration, "The longest pause between two attempts."),
    "retry_exit_codes": Key(exit_codes, "Only these exit codes are tried again; otherwise any."),
    "success_codes": Key(exit_codes, "Exit codes that are a success."),
    "timeout": Key(some_time(), "How long an attempt may take: then TERM to its process group."),
    "kill_after": Key(duration, "How long after TERM all its descendants get KILL."),
    "expires": Key(some_time(), "Counted from when a run is due: not started by then, it never starts."),
    "max_concurrent": Key(
        integer(1), "So many runs of this job at once, over all workers; the others wait in their place."
    ),
    "lock": Key(
        filled_text, 'One at a time per key, over all jobs and workers, as in "crm-{tenant}"; the others wait.'
    ),
    "rate_limit": Key(
        _rate, "10/1m: at most 10 attempts start in any minute, over all workers; the others wait in their place."
    ),
    "unique": Key(
        one_of("params", "job"),
        "Enqueueing while one of the same params, or of the same job, is pending or running gives that one.",
    ),
    "on_worker_lost": Key(
        one_of("retry", "fail"), "What becomes of a run whose worker died; fail for what must not run twice."
    ),
    "crash_limit": Key(integer(1), "A run that lost its worker so often is failed."),
    "on_failure": Key(name, "A job that is enqueued when a run has failed for good, expired, is held or was missed."),
    "on_success": Key(name, "A job that is enqueued when a run has succeeded."),
    "result": Key(one_of("text", "json"), "What the stdout of a command or script is."),
}


def read_jobs(at: At, raw: Mapping[str, Any]) -> dict[str, Job | None]:
    """The jobs of the file, `[defaults]` merged under each; None for one that is wrong, which has been reported."""
    place = at / "defaults"
    given = table(place, raw.get("defaults", {})) or {}
    defaults = read(place, given, JOB)
    jobs = {}
    for job_name, job_at, values in named(at / "jobs", raw.get("jobs", {})):
        count = len(at.problems)
        merged = _merged(defaults, read(job_at, values, JOB))
        if job_name == "last":
            job_at.wrong('"last" means the newest run; choose another name')
        kind = _kind(job_at, values, given)
        _check_fit(job_at, kind, values)
        _check_together(job_at, merged, _table_of(values, "params") | _table_of(given, "params"))
        sound = len(at.problems) == count and kind in merged
        jobs[job_name] = _made(job_at, job_name, kind, merged) if sound else None
    return jobs


def _merged(defaults: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """A job's values over the defaults; `params` and `env` name by name, the body as a whole."""
    has_body = any(kind in own for kind in KINDS)
    merged = {key: value for key, value in defaults.items() if not (has_body and key in KINDS)} | own
    params = {param.name: param for param in (*defaults.get("params", ()), *own.get("params", ()))}
    merged["params"] = tuple(params.values())
    merged["env"] = {**defaults.get("env", {}), **own.get("env", {})}
    return merged


def _table_of(values: dict[str, Any], key: str) -> set[str]:
    found = values.get(key)
    return set(found) if isinstance(found, dict) else set()


def _kind(at: At, own: dict[str, Any], defaults: dict[str, Any]) -> str:
    """Which of the three kinds of job it is; empty where that can't be told, which has been reported."""
    kinds = [kind for kind in KINDS if kind in own] or [kind for kind in KINDS if kind in defaults]
    if len(kinds) == 1:
        return kinds[0]
    if kinds:
        at.wrong(f"expected exactly one of command, script and python, got {' and '.join(kinds)}")
    elif not any(FOREIGN.get(key.lower()) in KINDS for key in own):
        at.wrong("expected exactly one of command, script and python, got none")
    return ""


def _check_fit(at: At, kind: str, own: dict[str, Any]) -> None:
    """Say which keys mean nothing for this kind of job."""
    for key, (kinds, why) in ONLY_FOR.items():
        if key in own and kind and kind not in kinds:
            (at / key).wrong(f"not for a {kind} job: {why}")
    if kind == "python" and own.get("isolation") == "thread":
        for key in NOT_IN_A_THREAD:
            if key in own:
                (at / key).wrong('not with isolation = "thread": that runs inside the worker, and can\'t be stopped')


def _check_together(at: At, values: dict[str, Any], declared_names: set[str]) -> None:
    """Say which placeholders and variables don't go with the parameters.

    `declared_names` has those too whose declaration is wrong: they are reported once, there.
    """
    params = {param.name: param for param in values["params"]}
    for index, element in enumerate(values.get("command", ())):
        _check_placeholders((at / "command")[index], element, params, declared_names)
    if "command" in values and (param := params.get(alone(values["command"][0]) or "")):
        _check_program((at / "command")[0], param)
    if "lock" in values:
        _check_placeholders(at / "lock", values["lock"], params, declared_names, alone_is_fine=False)
    taken = {f"PARAM_{param.upper()}" for param in params}
    for variable in values["env"]:
        if variable in taken | _GIVEN_BY_HUEYCTL:
            (at / "env" / variable).wrong("hueyctl sets this variable itself")


def _check_placeholders(
    at: At, element: str, params: dict[str, Param], declared_names: set[str], *, alone_is_fine: bool = True
) -> None:
    for found in sorted(placeholders([element])):
        if found not in declared_names:
            near = nearest(found, declared_names)
            hint = f"did you mean {{{near}}}? Otherwise " if near else ""
            at.wrong(
                f"there is no parameter for {{{found}}}; {hint}declare it in params, "
                f"or write {{{{{found}}}}} for the text itself"
            )
        elif found in params and params[found].type == "array" and not (alone_is_fine and alone(element)):
            at.wrong(f"{{{found}}} is an array: it can only stand alone in an element of command")


def _check_program(at: At, param: Param) -> None:
    if param.type == "array" or not (param.required or param.default):
        at.wrong(f"{{{param.name}}} may be absent or empty, and a command needs its program")


def _made(at: At, job_name: str, kind: str, values: dict[str, Any]) -> Job:
    """The job, of values that are right and go together; what defaults gave it in vain is dropped."""
    given = {key: values.pop(key) for key in (*KINDS, "shell", "isolation") if key in values}
    body: Body
    if kind == "command":
        body = CommandBody(argv=given["command"])
    elif kind == "script":
        body = ScriptBody(text=given["script"], shell=given.get("shell", SHELL))
    else:
        body = PythonBody(target=given["python"], isolation=given.get("isolation", "process"))
        in_vain = ("result", *(NOT_IN_A_THREAD if body.isolation == "thread" else ()))
        values = {key: value for key, value in values.items() if key not in in_vain}
    return Job(**{"name": job_name, "body": body, "dir": at.dir, **values})
