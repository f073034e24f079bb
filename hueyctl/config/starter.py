"""The `jobs.toml` that `hueyctl init` writes: short, and every job in it works at once."""

from __future__ import annotations

import os
from pathlib import Path

from hueyctl.model.instant import zone

_TEXT = """\
# Jobs for hueyctl. Check this file with `hueyctl check`.
#
#   hueyctl worker start              runs them, until Ctrl-C
#   hueyctl enqueue hello name=Ada    hands one over, and prints the id of the run
#   hueyctl events --follow           shows all that happens

[hueyctl]
timezone = "{timezone}"

# A command: a list of arguments, no shell. {{name}} is replaced by the parameter.
[jobs.hello]
description = "Say hello"
command = ["echo", "Hello, {{name}}!"]
params = {{ name = "world" }}

# A script: never rewritten; parameters arrive as variables PARAM_<NAME>.
[jobs.pack]
description = "Keep a compressed copy of a file"
script = \'\'\'
gzip -c "$PARAM_FILE" > "$PARAM_FILE.gz"
echo "packed $PARAM_FILE: $(wc -c < "$PARAM_FILE.gz") bytes"
\'\'\'
params = {{ file = "jobs.toml" }}
timeout = "10m"

# What fails is tried again: here after 2 s, then after 4 s; each attempt sees its number.
[jobs.flaky]
description = "Fail once, then succeed"
script = 'test "$HUEYCTL_ATTEMPT" -ge 2'
retries = 2
retry_delay = "2s"
retry_backoff = 2
"""


def starter(timezone: str) -> str:
    """The text of the file, with the IANA time zone `timezone` written into it."""
    return _TEXT.format(timezone=timezone)


def host_timezone() -> str:
    """The IANA name of this host's time zone: from TZ, /etc/timezone or the link /etc/localtime; otherwise UTC."""
    for candidate in (_from_environment, _from_file, _from_link):
        name = candidate()
        if name and _is_zone(name):
            return name
    return "UTC"


def _from_environment() -> str:
    return os.environ.get("TZ", "").removeprefix(":")


def _from_file() -> str:
    try:
        return Path("/etc/timezone").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _from_link() -> str:
    try:
        return os.readlink("/etc/localtime").partition("zoneinfo/")[2]
    except OSError:
        return ""


def _is_zone(name: str) -> bool:
    try:
        zone(name)
    except ValueError:
        return False
    return True
