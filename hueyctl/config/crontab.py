"""A crontab as a `jobs.toml`: pure text to text, with a note for each line that can't be carried over as it is.

What cron does is kept, also where hueyctl could do better: `/bin/sh -c` in the home folder, no catching up, runs side
by side. Each line becomes a job and a schedule of one name, made from its command.

Source: crontab(5) of Debian's cron and of cronie.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from hueyctl.config.crontab_names import name_of
from hueyctl.model.cron import ALIASES, Cron
from hueyctl.model.instant import zone
from hueyctl.model.wording import quoted

Note = tuple[int, str]
"""The number of a line, from 1, and what is to be said about it."""

_VARIABLE = re.compile(r"""("[^"]+"|'[^']+'|[A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)""", re.DOTALL)
_HEADING = re.compile(r"\W*(m|min|minute)s?\s+(h|hour)s?\s+(dom|mday|day)\b.*", re.IGNORECASE)
# What explains the columns with lines that lead to each: `.---- minute`, `|  .- hour`, `│ ┌─ hour`.
_DRAWING = re.compile(r"[.+]-|[|│┌╭].*")
_SH = {"sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "busybox"}
_FOREIGN_ALIASES = {"@every_minute": "* * * * *"}
# Variables that say something to cron, and nothing here.
_MAIL = "what a run prints is kept (hueyctl logs), and failures are in hueyctl events; no mail is sent"
_MEANINGLESS = {
    "MAILTO": _MAIL,
    "MAILFROM": _MAIL,
    "CONTENT_TYPE": _MAIL,
    "CONTENT_TRANSFER_ENCODING": _MAIL,
    "LOGNAME": "runs are of the user whose worker runs them",
    "USER": "runs are of the user whose worker runs them",
}


class Converted(msgspec.Struct, frozen=True):
    """The text of a `jobs.toml` with so many `jobs`, and what is to be said about lines of the crontab."""

    text: str
    jobs: int
    notes: list[Note]


class _Around(msgspec.Struct, frozen=True, kw_only=True):
    """What the variables above a line say of it."""

    env: dict[str, str] = {}
    shell: str = "/bin/sh"
    dir: str = "~"
    timezone: str | None = None
    unknown_timezone: str | None = None
    jitter_minutes: int = 0


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A line that is carried over; `cron` None: nothing starts it by itself."""

    name: str
    description: str
    script: str
    cron: str | None
    around: _Around


class _Uncarried(Exception):
    """A line that can't be carried over, and why."""


def from_crontab(text: str, *, timezone: str, system: bool = False, user: str | None = None) -> Converted:
    """The `jobs.toml` that does what this crontab did on a host in the IANA zone `timezone`.

    `system`: its lines have a column for the user, as /etc/crontab has; that it isn't `user`, who is to run the
    worker, is said.
    """
    reader = _Reader(system=system, user=user)
    # Nothing else ends a line for cron: a form feed or a line separator is of the command.
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        reader.read(number, line.strip())
    return Converted(_written(reader, timezone), len(reader.entries), reader.notes)


class _Reader:
    """Reads line by line: variables hold for what comes below them, comments for the line right below."""

    def __init__(self, *, system: bool, user: str | None) -> None:
        self.entries: list[_Entry] = []
        self.notes: list[Note] = []
        self.left_out: list[str] = []
        self._system, self._user = system, user
        self._around = _Around()
        self._comments: list[str] = []
        self._names = {"last"}  # which means the newest run

    def read(self, number: int, line: str) -> None:
        """Take in the next line: an entry, a variable for those after it, or a comment, which is the next one's."""
        if line.startswith("#"):
            self._comments.append(line.lstrip("#").strip())
            return
        comments, self._comments = self._comments, []
        if not line:
            return
        try:
            if match := _VARIABLE.fullmatch(line):
                self._set(number, _unquoted(match[1]), _unquoted(match[2].strip()))
            else:
                self.entries.append(self._entry(number, line, comments))
        except _Uncarried as exc:
            self.notes.append((number, f"not carried over: {exc}"))
            self.left_out.append(line)

    def _set(self, number: int, name: str, value: str) -> None:
        replace, around = msgspec.structs.replace, self._around
        if name == "SHELL":
            self._around = replace(around, shell=value)
        elif name == "CRON_TZ":
            known = _is_zone(value)
            self._around = replace(around, timezone=value if known else None, unknown_timezone=None if known else value)
        elif name == "RANDOM_DELAY" and value.isdecimal():
            self._around = replace(around, jitter_minutes=int(value))
        elif name in _MEANINGLESS:
            if value:  # an empty MAILTO asks for what is done anyway
                self.notes.append((number, f"{name} means nothing here: {_MEANINGLESS[name]}"))
        elif name.startswith(("HUEYCTL_", "PARAM_")):
            raise _Uncarried(f"{name} is a variable that hueyctl sets itself")
        else:
            if "$" in value:
                self.notes.append((number, f"{name} is carried over as it stands: neither cron nor hueyctl expands $"))
            around = replace(around, env={**around.env, name: value})
            self._around = replace(around, dir=value) if name == "HOME" else around

    def _entry(self, number: int, line: str, comments: Sequence[str]) -> _Entry:
        fields, rest = _split(line.removeprefix("-"))  # cronie's dash: don't write to the log of the system
        cron = self._cron(number, fields)
        if self._system:
            user, *command = rest.split(None, 1) or [""]
            rest = command[0] if command else ""
            if user != self._user:
                self.notes.append((number, f"it was of the user {quoted(user)}; it runs as the user of the worker"))
        elif re.match(r"root\s", rest):
            self.notes.append((number, 'its command begins with "root"; if that is a user, give --system'))
        rest = rest.strip()
        if not rest:
            raise _Uncarried("there is no command")
        if "\0" in line:
            raise _Uncarried("a NUL character")
        return _Entry(
            name=self._named(rest),
            description=_description(comments),
            script=_script(rest, self._around.shell),
            cron=cron,
            around=self._around,
        )

    def _cron(self, number: int, fields: str) -> str | None:
        if fields.lower() == "@reboot":
            said = "@reboot: its job is carried over, and nothing starts it; enqueue it from what starts the worker"
            self.notes.append((number, said))
            return None
        if self._around.unknown_timezone is not None:
            raise _Uncarried(f"there is no time zone {quoted(self._around.unknown_timezone)}")
        if "~" in fields:
            raise _Uncarried("~ is a time at random; write one, and jitter to spread what would start at once")
        fields = _FOREIGN_ALIASES.get(fields.lower(), fields)
        try:
            Cron(fields)
        except ValueError as exc:
            raise _Uncarried(str(exc)) from exc
        return fields.lower() if fields.lower() in ALIASES else fields

    def _named(self, command: str) -> str:
        wanted = name_of(command)
        name, count = wanted, 1
        while name in self._names:
            count += 1
            name = f"{wanted}-{count}"
        self._names.add(name)
        return name


# -- reading ----------------------------------------------------------------------------------------------------------


def _split(line: str) -> tuple[str, str]:
    """The fields of a line as one text, and what comes after them."""
    count = 1 if line.startswith("@") else 5
    words = line.split(None, count)
    return " ".join(words[:count]), words[count] if len(words) > count else ""


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def _description(comments: Iterable[str]) -> str:
    """What the comments right above a line say, without lines that were commented out, rules, and all that ends in a
    heading of the columns: editors begin a new crontab with a page of that."""
    kept: list[str] = []
    for line in comments:
        if _HEADING.fullmatch(line) or _DRAWING.match(line):
            kept.clear()
        elif any(char.isalnum() for char in line) and not _is_entry(line):
            kept.append(line)
    text = " ".join(kept)
    return "".join(char for char in text if char.isprintable())


def _is_entry(line: str) -> bool:
    fields, rest = _split(line)
    try:
        Cron(fields)
    except ValueError:
        return fields.lower() == "@reboot"
    return bool(rest)


def _script(command: str, shell: str) -> str:
    """The command as a script: after the first % comes its standard input, in which each further one ends a line."""
    parts = [part.replace("\\%", "%") for part in re.split(r"(?<!\\)%", command)]
    if len(parts) == 1:
        return parts[0]
    if shell.rpartition("/")[2] not in _SH:
        raise _Uncarried(f"its standard input (after the %) can't be written for {shell}")
    end = "END"
    while end in parts[1:]:
        end += "_"
    given = "\n".join(parts[1:])
    return f"{{\n{parts[0].strip()}\n}} <<'{end}'\n{given}\n{end}"


def _is_zone(name: str) -> bool:
    try:
        zone(name)
    except ValueError:
        return False
    return True


# -- writing ----------------------------------------------------------------------------------------------------------


def _written(reader: _Reader, timezone: str) -> str:
    arounds = [entry.around for entry in reader.entries] or [_Around()]
    common = _common(arounds)
    lines = [
        "# Made by `hueyctl init --crontab`. What cron did is kept; where hueyctl can do better, change it here:",
        '#   catch_up = "latest"   make up for what was missed while no worker was running',
        '#   overlap = "skip"      leave a slot out while the run before it still goes on',
        "#   retries, timeout      of a job: try again what fails, stop what hangs",
        "# PATH is that of the worker, unless it is set here; cron's own is /usr/bin:/bin.",
        "",
        "[hueyctl]",
        _pair("timezone", timezone),
    ]
    if len(reader.entries) > 4:
        # cron never lets a line wait for another one.
        lines += ["", "[worker]", f"concurrency = {min(len(reader.entries), 1000)}"]
    lines += ["", "[defaults]", _shell(common["shell"]), _pair("dir", common["dir"]), *_env(common["env"])]
    for entry in reader.entries:
        lines += ["", *_job(entry, common), *_schedule(entry)]
    if reader.left_out:
        lines += ["", "# These lines were not carried over:", *(f"#   {_printable(line)}" for line in reader.left_out)]
    return "\n".join(lines) + "\n"


def _common(arounds: Sequence[_Around]) -> dict[str, Any]:
    """What holds for all lines: it goes into [defaults]."""
    first = arounds[0]
    return {
        "shell": first.shell if all(each.shell == first.shell for each in arounds) else "/bin/sh",
        "dir": first.dir if all(each.dir == first.dir for each in arounds) else "~",
        "env": {
            name: value for name, value in first.env.items() if all(each.env.get(name) == value for each in arounds)
        },
    }


def _job(entry: _Entry, common: Mapping[str, Any]) -> Iterator[str]:
    around = entry.around
    yield f"[jobs.{entry.name}]"
    if entry.description:
        yield _pair("description", entry.description)
    yield f"script = {_text(entry.script)}"
    if around.shell != common["shell"]:
        yield _shell(around.shell)
    if around.dir != common["dir"]:
        yield _pair("dir", around.dir)
    yield from _env({name: value for name, value in around.env.items() if name not in common["env"]})


def _schedule(entry: _Entry) -> Iterator[str]:
    if entry.cron is None:
        return
    yield ""
    yield f"[schedules.{entry.name}]"
    yield _pair("cron", entry.cron)
    if entry.around.timezone is not None:
        yield _pair("timezone", entry.around.timezone)
    if entry.around.jitter_minutes:
        yield _pair("jitter", f"{entry.around.jitter_minutes}m")
    yield _pair("overlap", "allow")
    yield _pair("catch_up", "none")


def _shell(shell: str) -> str:
    return f'shell = [{_text(shell)}, "-c"]'


def _env(env: Mapping[str, str]) -> list[str]:
    return [f"env = {{ {', '.join(_pair(name, value) for name, value in env.items())} }}"] if env else []


def _pair(key: str, value: str) -> str:
    import tomli_w

    return tomli_w.dumps({key: value}).rstrip("\n")


def _text(text: str) -> str:
    """A TOML string, as readable as it can be."""
    plain = all(char.isprintable() or char in "\t\n" for char in text)
    if plain and "\n" not in text and "'" not in text:
        return f"'{text}'"
    if plain and "'''" not in text:
        return f"'''\n{text}\n'''"
    return _pair("x", text).removeprefix("x = ")


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() or char == "\t" else "?" for char in text)
