"""Which keys a table may have, and what was probably meant by one that it may not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hueyctl.config.reading import At, Keys
from hueyctl.model.wording import did_you_mean, quoted

FOREIGN = {
    # Other tools' words, in lower case and with underscores, and ours. DESIGN section 5 names the first dozen.
    "run": "script",
    "cwd": "dir",
    "workingdirectory": "dir",
    "needs": "pipelines",
    "depends": "pipelines",
    "timeout_minutes": "timeout",
    "oncalendar": "cron",
    "crontab": "cron",
    "persistent": "catch_up",
    "workers": "concurrency",
    "cmd": "command",
    "exec": "command",
    "execstart": "command",
    "argv": "command",
    "shell_command": "script",
    "function": "python",
    "callable": "python",
    "target": "python",
    "working_dir": "dir",
    "workdir": "dir",
    "environment": "env",
    "environmentfile": "env_file",
    "depends_on": "pipelines",
    "depends_on_past": "pipelines",
    "max_retries": "retries",
    "attempts": "retries",
    "default_retry_delay": "retry_delay",
    "backoff": "retry_backoff",
    "timeoutstopsec": "kill_after",
    "timeoutstartsec": "timeout",
    "runtimemaxsec": "timeout",
    "time_limit": "timeout",
    "ttl": "expires",
    "max_instances": "max_concurrent",
    "concurrency": "max_concurrent",
    "concurrencypolicy": "overlap",
    "misfire_grace_time": "catch_up_window",
    "coalesce": "catch_up",
    "randomizeddelaysec": "jitter",
    "interval": "every",
    "schedule": "cron",
    "tz": "timezone",
    "threads": "concurrency",
}


def read(at: At, values: Mapping[str, Any], keys: Keys) -> dict[str, Any]:
    """The values of a table by the readers of its keys; wrong ones and unknown keys are reported and left out."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        known = keys.get(key)
        if known is None:
            (at / key).wrong(f"unknown key{_meant(at, key, value, keys)}")
        elif (result := known.reader(at / key, value)) is not None:
            found[key] = result
    return found


def _meant(at: At, key: str, value: object, keys: Keys) -> str:
    if isinstance(value, dict) and value.keys() & {"command", "script", "python"} and "jobs" not in keys:
        return '; a name with a dot in it stands in quotes, as in [jobs."a.b"]'
    spelled = key.lower().replace("-", "_")
    ours = FOREIGN.get(spelled, spelled)
    if ours in keys:
        return f"; did you mean {quoted(ours)}?"
    # Among the sections, [job] is a slip of the pen for [jobs], and not the job of a schedule.
    if not at.keys and (hint := did_you_mean(key, keys)):
        return hint
    if ours == "pipelines":
        return "; did you mean the steps of a [pipelines.NAME]?"
    for meant in dict.fromkeys((spelled, ours)):
        for place, others in at.file.tables.items():
            if meant in others:
                return f"; did you mean {quoted(meant)} in {place}?"
    return did_you_mean(key, keys)
