"""Names for jobs that had none: made from what a line of a crontab runs."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Words before the program that a line is about, whose own names would say nothing.
_WRAPPERS = {"sudo", "nohup", "env", "time", "timeout", "chronic", "setsid", "exec", "nice", "ionice", "flock"}
_INTERPRETERS = {"sh", "bash", "dash", "zsh", "perl", "php", "ruby", "node", "java", "run-parts", "source", "."}
# What only prepares for a program, behind && or ; as a rule.
_STEPS = {"cd", "test", "[", "[[", "command", "set", "export", "sleep", "umask", "ulimit"}
# Options whose argument is the word behind them, for flock, nice, ionice and sudo.
_WITH_ARGUMENT = re.compile(r"-[wEcu]|--(wait|timeout|adjustment|class|classdata|user)")
_WORD = re.compile(r"""(?:"[^"]*"|'[^']*'|[^\s"'])+""")
_LONGEST = 60


def name_of(command: str) -> str:
    """The name of the program, or of the script that an interpreter is given; `job` where none is found."""
    for part in re.split(r"&&|\|\||[;|\n]", command.partition("%")[0]):
        words = [word.strip("\"'") for word in _WORD.findall(part)]
        if found := _program([word for word in words if word not in ("(", "{", "!", "if", "then", "do")]):
            return found
    return "job"


def _program(words: Sequence[str]) -> str:
    wrapper = ""
    takes_next = False
    for word in words:
        base = word.rstrip("/").rpartition("/")[2]
        if takes_next:
            takes_next = False
        elif word.startswith("-"):
            takes_next = _WITH_ARGUMENT.fullmatch(word) is not None or (word == "-n" and wrapper in ("nice", "ionice"))
        elif re.match(r"[A-Za-z_]\w*=", word) or word[0:1] in "<>" or re.fullmatch(r"[0-9.]+[smhd]?", word):
            continue
        elif base in _STEPS:
            return ""
        elif base in _WRAPPERS:
            wrapper, takes_next = base, False
        elif wrapper == "flock":
            wrapper = ""  # this is its file
        elif base in _INTERPRETERS or re.fullmatch(r"(python|php)[0-9.]*", base):
            wrapper = ""
        elif found := _clean(base):
            return found
    # An interpreter and its options alone: better than no name.
    return _clean(words[0].rpartition("/")[2]) if words and words[0] not in _STEPS else ""


def _clean(word: str) -> str:
    stem = re.sub(r"\.(sh|bash|py|pl|php|rb|js|jar)$", "", word)
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem)[:_LONGEST].strip("-")
