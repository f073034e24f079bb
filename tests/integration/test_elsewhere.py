"""What ran on another machine can be read on this one: the ends of its output come with its settlement."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from hueyctl.app.elsewhere import bring, host_of
from hueyctl.app.output import read_logs
from hueyctl.app.session import Session
from hueyctl.errors import NotFound
from hueyctl.model.definition import CommandBody, Job, Project, Retention
from hueyctl.model.outcome import Exited
from hueyctl.model.run import Message, NewRun, Run
from hueyctl.model.transition import Done, Printed, Settlement
from hueyctl.process.output import cut_marker, end_of
from hueyctl.storage.identity import note
from hueyctl.storage.locks import hold
from hueyctl.storage.store import Claim, JobPolicy, Want, Worker

NOW = datetime(2026, 3, 1, tzinfo=UTC)
JOB = Job(name="a", body=CommandBody(argv=("true",)), dir=Path("/"))


@pytest.fixture
def session(postgres_database: str, tmp_path: Path) -> Iterator[Session]:
    """A session of a machine on which no worker has ever been; on `far`, one is."""
    project = Project(path=tmp_path / "jobs.toml", store=postgres_database, jobs={"a": JOB})
    with closing(Session(project, by="ada@here")) as session:
        facts = {"host": "far", "pid": 1, "version": "0", "file": "", "concurrency": 1, "lease_s": 30.0}
        worker = Worker(id="w1", jobs=("a",), queues=None, started_at=NOW, beat_at=NOW, **facts)
        session.creator().register(worker, now=NOW)
        yield session


def claimed(session: Session, id: str = "0" * 8 + "-0000-4000-8000-" + "0" * 12) -> Claim:
    store = session.writer()
    store.accept([NewRun(id=id, job="a", message=Message())], by="ada@here", now=NOW)
    [claim] = store.exchange([], Want(worker="w1", limit=1, jobs={"a": JobPolicy()}), now=NOW).claims
    return claim


def settle(session: Session, claim: Claim, printed: Printed | None, *, token: str | None = None) -> Run:
    settlement = Settlement(
        n=claim.run.n,
        token=token or claim.token,
        verdict=Done(),
        outcome=Exited(0),
        ended_at=NOW,
        claimed=claim.run if token is None else None,
        printed=printed,
    )
    session.writer().exchange([settlement], None, now=NOW)
    run = session.writer().get(claim.run.id)
    assert run is not None
    return run


def test_what_an_attempt_printed_elsewhere_is_read_here(session: Session) -> None:
    run = settle(session, claimed(session), Printed(b"out\n", b"\xff\x00err"))
    assert [(chunk.stream, chunk.data) for chunk in read_logs(session, run, attempt=None)] == [
        ("stdout", b"out\n"),
        ("stderr", b"\xff\x00err"),
    ]
    stdout = session.place.stdout(run.id, 1)
    assert stdout.stat().st_mode & 0o077 == 0
    assert [path.name for path in sorted(stdout.parent.iterdir())] == ["1.err", "1.out"]


def test_what_is_here_is_not_replaced_by_what_is_kept(session: Session) -> None:
    run = settle(session, claimed(session), Printed(b"the end of it", b""))
    session.place.prepare_output(run.id)
    session.place.stdout(run.id, 1).write_bytes(b"all of it")
    bring(session, run, 1)
    assert session.place.stdout(run.id, 1).read_bytes() == b"all of it"


def test_nothing_is_kept_of_an_attempt_that_comes_too_late_or_printed_nothing(session: Session) -> None:
    claim = claimed(session)
    run = settle(session, claim, Printed(b"stale", b""), token="1-0000")
    assert session.reader().printed(run, 1) is None
    run = settle(session, claim, None)
    assert session.reader().printed(run, 1) is None
    assert list(read_logs(session, run, attempt=None)) == []
    with pytest.raises(NotFound):
        list(read_logs(session, run, attempt=2))


def test_what_is_kept_goes_with_its_run(session: Session) -> None:
    run = settle(session, claimed(session), Printed(b"out", b""))
    store = session.writer()
    assert store.printed(run, 1) == Printed(b"out", b"")
    day = timedelta(days=1)
    retention = msgspec.structs.replace(Retention(), succeeded=day)
    assert store.prune(retention, now=NOW + 2 * day).runs == (run.id,)
    assert store.printed(run, 1) is None


def test_where_a_run_is_under_way_is_known(session: Session) -> None:
    claim = claimed(session)
    assert host_of(session, claim.run) == "far"
    session.place.prepare()
    lock = hold(session.place.worker_lock("w1"))
    assert lock is not None
    assert host_of(session, claim.run) == "far", "a lock that was copied here"
    note(lock, session.place)
    assert host_of(session, claim.run) is None, "a worker of this machine holds its lock here"
    lock.release()
    assert host_of(session, settle(session, claim, None)) is None


def test_the_end_of_a_long_output_says_how_much_is_before_it(tmp_path: Path) -> None:
    path = tmp_path / "1.out"
    assert end_of(path, 10) == b""
    path.write_bytes(b"0123456789")
    assert end_of(path, 10) == b"0123456789"
    assert end_of(path, 4) == cut_marker(6) + b"6789"
