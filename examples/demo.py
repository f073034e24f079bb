"""`make demo`: a session with hueyctl that plays itself, checks itself and cleans up behind itself.

It prints what it types. Everything is real: the jobs of this repository's jobs.toml, a worker in the background, a
store of its own in a temporary folder, and a web server on loopback that `fetch` downloads from. It exits with 0 only
if what it shows has happened, and in under a minute.
"""

from __future__ import annotations

import http.server
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
HUEYCTL = Path(sys.executable).with_name("hueyctl")
PATIENCE_S = 30.0


def main() -> int:
    work = Path(tempfile.mkdtemp(prefix="hueyctl-demo-"))
    server = serve(REPOSITORY)
    session = Session(work)
    began = time.monotonic()
    try:
        play(session, f"http://127.0.0.1:{server.server_address[1]}", work)
    except NotAsShownError as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        log = work / "store" / "worker.log"
        if log.exists():
            print(f"demo: the worker's log:\n{log.read_text(errors='replace')}", file=sys.stderr)
        return 1
    finally:
        session.end()
        server.shutdown()
        shutil.rmtree(work, ignore_errors=True)
    print(f"\nAll of it happened as it should, in {time.monotonic() - began:.0f} seconds.")
    return 0


def play(session: Session, site: str, work: Path) -> None:
    session.say("What this folder's jobs.toml defines, and whether it is right:")
    session.type("check")
    session.type("jobs")
    session.type("schedule", "list")

    session.say("When would a cron expression fire? On 28 March 2027, the clock in Berlin skips half past two.")
    words = ("--cron", "30 2 * * *", "--timezone", "Europe/Berlin", "--from", "2027-03-27", "-n", "3")
    session.type("schedule", "next", *words)

    session.say("Enqueued while no worker is there: what is accepted is on the disk. Higher priorities go first.")
    later = session.enqueue("archive", f"out={work}/examples.tar.gz")
    middle = session.enqueue("fetch", f"url={site}/README.md", f"out={work}/README.md", "--priority", "5")
    first = session.enqueue("fetch", f"url={site}/jobs.toml", f"out={work}/jobs.toml", "--priority", "10")

    session.say("Follow the event log (its lines are the ones behind a bar), and start a worker in the background:")
    session.follow()
    session.type("worker", "start", "--detach")
    for run in (first, middle, later):
        session.until(f"{run[:8]} succeeded", lambda run=run: session.run(run)["state"] == "succeeded")
    started = [event["run"] for event in session.events() if event["type"] == "executing"]
    order = [run for run in started if run in (first, middle, later)]  # the heartbeat may come between them
    session.check("the highest priority started first", order == [first, middle, later])
    same = (work / "jobs.toml").read_bytes() == (REPOSITORY / "jobs.toml").read_bytes()
    session.check("fetch downloaded what the server has", same)

    session.say("A Python function, waited for; then what it returned:")
    session.type("enqueue", "words", f"path={work}/README.md", "--wait")
    session.type("result", "last")
    session.check("words returned how many there are", session.run("last")["result"]["words"] > 0)

    session.say("A job that fails twice before it succeeds: each attempt is kept, with what it printed.")
    session.type("enqueue", "flaky", "failures=2", "--wait")
    session.type("inspect", "last")
    flaky = session.run("last")
    session.check("flaky succeeded at its third attempt", (flaky["state"], flaky["attempt"]) == ("succeeded", 3))

    session.say("A pipeline: a page is fetched, two steps work on it side by side, and the last one gets both results.")
    session.type("graph", "survey")
    session.type("enqueue", "survey", f"url={site}/examples/page.html", f"out={work}/survey", "--wait")
    session.type("inspect", "last")
    session.type("result", "last")
    survey = session.run("last")
    words, packed = json.loads(survey["result"])
    session.check("both results came together", words["words"] > 0 and packed.startswith("packed examples"))

    session.say("A slow one, looked at while it runs, and stopped:")
    slow = session.enqueue("slow", "steps=300")
    session.until("slow is under way", lambda: "counting" in session.ask("inspect", slow))
    session.type("inspect")
    session.type("revoke", "last", "--kill")
    session.check("slow was stopped", session.run(slow)["state"] == "revoked")

    session.say("Every 15 seconds the heartbeat fires by itself:")
    session.until("the heartbeat has fired", lambda: any(run["state"] == "succeeded" for run in session.heartbeats()))
    session.type("inspect", "heartbeat")
    beat = session.heartbeats()[-1]
    session.check("it fired at a quarter of a minute", int(beat["scheduled_at"][17:19]) % 15 == 0)

    session.say("What came of everything, and the end of the worker:")
    session.type("runs")
    session.type("worker", "status")
    session.type("worker", "stop")
    session.until("the worker has gone", lambda: not session.workers())


class NotAsShownError(Exception):
    """Something that the demo shows did not happen."""


class Session:
    """A shell session in the repository's folder, with a store of its own."""

    def __init__(self, work: Path) -> None:
        self._environ = {**os.environ, "HUEYCTL_STORE": str(work / "store" / "queue.db"), "PYTHONUNBUFFERED": "1"}
        self._environ["PATH"] = f"{HUEYCTL.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        self._environ.pop("HUEYCTL_FILE", None)
        self._follower: subprocess.Popen[str] | None = None
        self._printer: threading.Thread | None = None

    def say(self, text: str) -> None:
        print(f"\n# {text}", flush=True)

    def type(self, *words: str) -> None:
        """Show a command and run it; its output goes where ours goes, so that a terminal gets its tables."""
        self._prompt(words)
        done = self._run(words)
        if done.returncode:
            raise NotAsShownError(f"`hueyctl {shlex.join(words)}` exited with {done.returncode}")

    def enqueue(self, *words: str) -> str:
        """Show an enqueue and the id that it prints, and return the id."""
        self._prompt(("enqueue", *words))
        done = self._run(("enqueue", *words), stdout=subprocess.PIPE)
        if done.returncode:
            raise NotAsShownError(f"`hueyctl enqueue {shlex.join(words)}` exited with {done.returncode}")
        print(done.stdout, end="", flush=True)
        return str(done.stdout.strip())

    def follow(self) -> None:
        """Show `events --follow`, and print its lines behind a bar from now on."""
        self._prompt(("events", "--follow", "&"))
        self._follower = subprocess.Popen(
            [HUEYCTL, "events", "--follow"], cwd=REPOSITORY, env=self._environ, stdout=subprocess.PIPE, text=True
        )
        self._printer = threading.Thread(target=self._print_events, daemon=True)
        self._printer.start()

    def ask(self, *words: str) -> str:
        """What a command answers, without showing it: the demo's own checks."""
        done = self._run((*words, "--json"), stdout=subprocess.PIPE)
        if done.returncode not in (0, 1):
            raise NotAsShownError(f"`hueyctl {shlex.join(words)} --json` exited with {done.returncode}")
        return str(done.stdout)

    def run(self, name: str) -> dict[str, Any]:
        return dict(json.loads(self.ask("inspect", name))["run"])

    def heartbeats(self) -> list[dict[str, Any]]:
        return list(json.loads(self.ask("runs", "--schedule", "heartbeat"))["runs"])

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.ask("events", "-n", "1000").splitlines()]

    def workers(self) -> list[Any]:
        return list(json.loads(self.ask("worker", "status"))["workers"])

    def check(self, what: str, holds: bool) -> None:
        if not holds:
            raise NotAsShownError(f"it is not true that {what}")

    def until(self, what: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            if time.monotonic() > deadline:
                raise NotAsShownError(f"it did not become true that {what}, in {PATIENCE_S:.0f} s")
            time.sleep(0.1)

    def end(self) -> None:
        """Leave nothing behind, whatever happened."""
        self._run(("worker", "stop", "--all"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if self._follower is not None and self._printer is not None:
            self._follower.terminate()
            self._follower.wait()
            self._printer.join()

    def _prompt(self, words: tuple[str, ...]) -> None:
        shown = " ".join(word if word == "&" else shlex.quote(word) for word in words)
        print(f"\n$ hueyctl {shown}", flush=True)

    def _run(self, words: tuple[str, ...], **options: Any) -> subprocess.CompletedProcess[str]:
        command = [HUEYCTL, *words]
        try:
            return subprocess.run(
                command, cwd=REPOSITORY, env=self._environ, text=True, timeout=PATIENCE_S, check=False, **options
            )
        except subprocess.TimeoutExpired:
            raise NotAsShownError(f"`hueyctl {shlex.join(words)}` took longer than {PATIENCE_S:.0f} s") from None

    def _print_events(self) -> None:
        assert self._follower is not None
        assert self._follower.stdout is not None
        for line in self._follower.stdout:
            print(f"  | {line}", end="", flush=True)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files without a line for each on stderr."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


def serve(folder: Path) -> http.server.ThreadingHTTPServer:
    """Serve `folder` on loopback, on a free port, until it is shut down."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


if __name__ == "__main__":
    sys.exit(main())
