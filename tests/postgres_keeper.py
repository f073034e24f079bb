"""Keeps one PostgreSQL server for the process that started this one; nothing of it outlives that process.

    python postgres_keeper.py BINARIES FOLDER PORT

Every line of input is a command (`start`, `stop fast`, `stop immediate`), and is answered by a line of JSON: null once
it is done, or what went wrong. However the owner ends, by SIGKILL too, the input ends with it: then the keeper kills
the server and removes its folder. Only another process can do that, and only one that no Ctrl-C reaches: it has a
session of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE_S = 60.0  # a start or a stop takes tenths of a second, but machines that run tests are busy

STOP = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}

# The first that this server can have. Most real databases sort as people do ("a" before "B"), unlike SQLite, so ours
# do wherever possible: no statement of hueyctl may depend on the order.
LOCALES = (
    ["--locale=en_US.UTF-8"],
    ["--locale=C", "--locale-provider=icu", "--icu-locale=en-US"],
    ["--locale=C.UTF-8"],
    ["--locale=C"],
)

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "100",
    "shared_buffers": "16MB",
    "max_wal_size": "128MB",  # its folder may be in memory
    "fsync": "off",  # nobody cuts this machine's power, and the end of a process loses nothing without it
    "full_page_writes": "off",
    "timezone": "Asia/Kathmandu",  # 5:45 from UTC: whoever forgets a time zone sees it
}


def main() -> None:
    keeper = Keeper(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
    # The owner may end before it has its answer.
    with contextlib.suppress(BrokenPipeError), contextlib.closing(keeper):
        for line in sys.stdin:
            answer = json.dumps(keeper.obey(*line.split())) + "\n"
            os.write(sys.stdout.fileno(), answer.encode())  # unbuffered, or Python complains of the rest at its exit


class Keeper:
    """A server, its folder, and the user it runs as."""

    def __init__(self, binaries: Path, folder: Path, port: str) -> None:
        self._binaries = binaries
        self._folder = folder
        self._port = port
        self._data = folder / "data"
        self._log = folder / "log"
        self._user = other_user()
        self._server: subprocess.Popen[bytes] | None = None

    def obey(self, command: str, *args: str) -> str | None:
        """Carry out a command; gives what went wrong."""
        commands: dict[str, Callable[..., None]] = {"start": self.start, "stop": self.stop}
        try:
            commands[command](*args)
        except (OSError, RuntimeError, subprocess.SubprocessError) as exc:
            return f"{exc}\n{self._log.read_text(errors='replace')[-4000:] if self._log.exists() else ''}"
        return None

    def start(self) -> None:
        """Start the server, the first time by making it, and wait until it takes connections."""
        if not self._data.exists():
            self._make()
        settings = SETTINGS | {"port": self._port, "unix_socket_directories": str(self._folder)}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with self._log.open("ab") as log:
            self._server = subprocess.Popen(
                [self._binaries / "postgres", "-D", self._data, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=end_with_parent,  # noqa: PLW1509 - there are no threads here
                **self._surroundings(),
            )
        end = time.monotonic() + PATIENCE_S
        while not self._is_ready(self._server.pid):
            if self._server.poll() is not None or time.monotonic() > end:
                raise RuntimeError("the server did not start")
            time.sleep(0.005)

    def stop(self, mode: str) -> None:
        """Stop the server, if it runs, and wait for its end."""
        if self._server is not None:
            self._server.send_signal(STOP[mode])
            self._server.wait(PATIENCE_S)

    def close(self) -> None:
        """Kill the server and remove its folder."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.stop("immediate")
        if self._server is not None:
            self._server.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _make(self) -> None:
        if self._user:
            os.chown(self._folder, self._user["user"], self._user["group"])
            self._binaries = self._reachable(self._binaries)
        # Trust is safe on the socket: nobody else can enter the folder that it is in.
        given = "--username=postgres --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 --no-sync".split()
        for locale in LOCALES:
            initdb = [self._binaries / "initdb", "-D", self._data, *given, *locale]
            made = subprocess.run(initdb, capture_output=True, text=True, check=False, **self._surroundings())
            if made.returncode == 0:
                return
        raise RuntimeError(f"initdb failed: {made.stderr}")

    def _surroundings(self) -> dict[str, Any]:
        env = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))}
        return {"cwd": self._folder, "env": env | {"LC_ALL": "C"}, **self._user}

    def _reachable(self, binaries: Path) -> Path:
        """The binaries, or else a copy that the server's user can run: root's own folders are closed to it."""
        try:
            subprocess.run([binaries / "initdb", "--version"], capture_output=True, check=True, **self._surroundings())
            return binaries
        except (PermissionError, subprocess.CalledProcessError):
            package, copies = binaries.parent.parent, self._folder / "copies"
            copy = copies / package.name / binaries.parent.name
            shutil.copytree(binaries.parent, copy, ignore=shutil.ignore_patterns("include", "pgxs", "*.a"))
            # The wheels for Linux keep their libraries beside the package, and find them from there.
            libraries = package.with_name(f"{package.name}.libs")
            if libraries.exists():
                shutil.copytree(libraries, copies / libraries.name)
            for path in [copies, *copies.rglob("*")]:
                os.chown(path, self._user["user"], self._user["group"])
            return copy / binaries.name

    def _is_ready(self, pid: int) -> bool:
        """Does the server's own file say so? It may still be the file of a server that crashed."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return lines[:1] == [str(pid)] and [line.strip() for line in lines[7:8]] == ["ready"]


def other_user() -> dict[str, Any]:
    """Whom `subprocess` is to run the server as: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def end_with_parent() -> None:
    """Let the kernel, where it can, stop the server when its keeper is killed, as by `killall -9 python`."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGQUIT)


if __name__ == "__main__":
    main()
