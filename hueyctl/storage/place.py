"""`Place`: where a store keeps what lies beside its database: locks, bells, output. And where a store may not lie.

Output is in files and not in the database: megabytes in the write-ahead log would be synced by the next enqueue.
"""

from __future__ import annotations

import errno
import os
import pwd
from functools import cache
from pathlib import Path

import msgspec

from hueyctl.errors import StoreError, StoreFull, StoreReadOnly
from hueyctl.model.address import digest, is_address, without_password

# SQLite's log needs memory shared between its processes, and flock must reach all of them: neither holds over a
# network. 9p and virtiofs are left out: they are how virtual machines see their own host's disk.
NETWORK_FILE_SYSTEMS = frozenset(
    {"acfs", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "fhgfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs"}
    | {"nfs", "nfs3", "nfs4", "ocfs2", "orangefs", "pvfs2", "smb", "smb2", "smb3", "smbfs"}
    | {"fuse.ceph", "fuse.cephfs", "fuse.davfs", "fuse.gcsfuse", "fuse.glusterfs", "fuse.goofys", "fuse.juicefs"}
    | {"fuse.rclone", "fuse.s3backer", "fuse.s3fs", "fuse.smbnetfs", "fuse.sshfs"}
)

ONE_USER = "a store belongs to one user; run hueyctl as its owner, or name another with HUEYCTL_STORE"


class Place(msgspec.Struct, frozen=True):
    """The files and folders of the store at `path` (absolute), which nobody but SQLite may open: closing it would drop
    SQLite's locks.

    A store on a server has an `address`, and no file at `path`: what lies beside it is of this machine alone.
    """

    path: Path
    address: str | None = None

    @classmethod
    def of(cls, store: str, folder: Path) -> Place:
        """The place of a store as a `jobs.toml` in `folder` (absolute) names it: a path, or an address."""
        if not is_address(store):
            return cls(Path(store))
        return cls(folder / ".hueyctl" / f"postgres-{digest(store)}", store)

    @property
    def shown(self) -> str:
        """Where the store is, as it may be shown: without a password."""
        return str(self.path) if self.address is None else without_password(self.address)

    def origin(self) -> str:
        """What is the same for all who ring each other here, and differs on any other machine; empty where nobody can
        be rung."""
        from hueyctl.storage.boot import boot_id

        try:
            found = os.stat(self.bell)
        except OSError:
            return ""
        return f"{boot_id()}-{found.st_dev}-{found.st_ino}"

    @property
    def dir(self) -> Path:
        """The folder that all of it is in."""
        return self.path.parent

    @property
    def workers(self) -> Path:
        """The folder of the workers' and guards' locks."""
        return self._beside("workers")

    @property
    def bell(self) -> Path:
        """The folder of the sockets of everyone who listens."""
        return self._beside("bell")

    @property
    def output(self) -> Path:
        """The folder of what runs print: `RUN/ATTEMPT.out`, `.err`."""
        return self._beside("output")

    @property
    def log(self) -> Path:
        """Where a worker started with `--detach` logs to."""
        return self._beside("worker.log")

    @property
    def maintenance_lock(self) -> Path:
        """Held by the one process that checkpoints, prunes and rescues."""
        return self._beside("maintenance.lock")

    @property
    def creation_lock(self) -> Path:
        """Held while the store is being made."""
        return self._beside("creation.lock")

    def worker_lock(self, worker: str) -> Path:
        """Held by a worker for its life."""
        return self.workers / f"{worker}.lock"

    def guard_lock(self, worker: str) -> Path:
        """Held by a worker's guard until the last process that it started is gone."""
        return self.workers / f"{worker}.guard"

    def stdout(self, run: str, attempt: int) -> Path:
        """What an attempt printed on its standard output."""
        return self.output / run / f"{attempt}.out"

    def stderr(self, run: str, attempt: int) -> Path:
        """What an attempt printed on its standard error."""
        return self.output / run / f"{attempt}.err"

    def input(self, run: str, attempt: int) -> Path:
        """What an attempt of a pipeline's step is handed, for as long as it runs."""
        return self.output / run / f"{attempt}.in"

    def progress(self, run: str, attempt: int) -> Path:
        """The file that an attempt writes its progress to, for as long as it runs."""
        return self._beside("progress") / f"{run}.{attempt}"

    def prepare_output(self, run: str) -> None:
        """Make the folder of what a run prints. Raises OSError."""
        (self.output / run).mkdir(mode=0o700, parents=True, exist_ok=True)

    def names(self, run: str, attempt: int) -> tuple[str, str, str]:
        """The names of `stdout`, `stderr` and `progress`: each attempt needs them, and a Path takes 4 µs to make."""
        output, progress = _folders(self.path)
        return f"{output}/{run}/{attempt}.out", f"{output}/{run}/{attempt}.err", f"{progress}/{run}.{attempt}"

    def _beside(self, name: str) -> Path:
        # Two stores may share a folder, but not their workers and locks; the usual one has the plain names.
        return self.dir / (name if self.path.name == "queue.db" else f"{self.path.name}.{name}")

    def prepare(self) -> None:
        """Make the folders that are missing, for their owner's eyes only (0700) and git-ignored.

        A folder that was there before, and isn't a `.hueyctl`, is the user's: its mode is left, and nothing ignored.

        Raises:
            StoreReadOnly: a folder can't be made here, or the store is another user's.
            StoreError: a file is in the way, or it is a network file system.
        """
        refuse_another_user(self.path)
        try:
            made = not self.dir.exists()
            self.dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            if made or self.dir.name == ".hueyctl":
                _ignore(self.dir)
            for folder in (self.workers, self.bell, self.output):
                folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as exc:
            raise told(exc, self.dir) from exc
        if self.address is None:
            refuse_network(self.dir)
        elif (found := network_file_system(self.dir)) is not None:
            raise StoreError(
                f"{self.dir} is on a network file system ({found}), where a worker can't be seen to die",
                hint="keep jobs.toml on a local disk: this machine's locks and output lie beside it",
            )


@cache
def _folders(path: Path) -> tuple[str, str]:
    place = Place(path)
    return str(place.output), str(place._beside("progress"))


def refuse_another_user(path: Path) -> None:
    """Raise StoreReadOnly where the store at `path` is another user's.

    Root may write anything, and what it makes beside it then (output, locks) its owner can't even read.
    """
    try:
        owner = os.stat(path).st_uid
    except OSError:
        return  # there is none yet; or it can't be had, which is said by who opens it
    if owner != os.geteuid():
        raise StoreReadOnly(
            f"{path} belongs to {_name(owner)}, and you are {_name(os.geteuid())}: a store belongs to one user",
            hint=f"go on as that user: sudo -u {_name(owner, '#')} hueyctl …",
        )


def _name(user: int, mark: str = "user ") -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"{mark}{user}"


def refuse_network(folder: Path) -> None:
    """Let a folder pass unless it is on a network file system (as far as Linux tells; elsewhere nothing is known).

    Raises:
        StoreError: it is on one.
    """
    found = network_file_system(folder)
    if found is not None:
        raise StoreError(
            f"{folder} is on a network file system ({found}), where SQLite can't keep what it accepts",
            hint="put the store on a local disk: [hueyctl] store in jobs.toml, or HUEYCTL_STORE",
        )


def network_file_system(folder: Path, *, mountinfo: str | None = None) -> str | None:
    """The type of the network file system that `folder` is on; None: a local one, or unknown. See `file_system`."""
    kind = file_system(folder, mountinfo=mountinfo)
    return kind if kind in NETWORK_FILE_SYSTEMS else None


def file_system(folder: Path, *, mountinfo: str | None = None) -> str | None:
    """The type of the file system that `folder` is on (`ext4`); None where the system doesn't tell.

    `mountinfo` is the text of /proc/self/mountinfo, read where it is None.
    """
    if mountinfo is None:
        try:
            with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
                mountinfo = file.read()
        except OSError:
            return None
    target = os.path.realpath(folder)
    best, kind = -1, None
    for line in mountinfo.splitlines():
        mounted, _, typed = line.partition(" - ")
        point = _unescaped(mounted.split(" ")[4])
        inside = point in {"/", target} or target.startswith(point + "/")
        if inside and len(point) >= best:  # the last of equals: it is mounted over the others
            best, kind = len(point), typed.split(" ")[0]
    return kind


def _unescaped(text: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text


def _ignore(folder: Path) -> None:
    try:
        fd = os.open(folder / ".gitignore", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        return  # it is there already, or the folder can't be written, which what is made next will say
    with os.fdopen(fd, "w") as file:
        file.write("*\n")


def is_read_only(folder: Path) -> bool:
    """Is it on a file system that is mounted read-only?"""
    try:
        return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def told(exc: OSError, folder: Path) -> StoreError:
    """What it means to the user that a file or folder of a store can't be used."""
    where = exc.filename or folder
    if exc.errno in {errno.EACCES, errno.EPERM}:
        return StoreReadOnly(f"{where}: can't be made, read or written: {exc.strerror}", hint=ONE_USER)
    if exc.errno == errno.EROFS:
        return StoreReadOnly(f"{where}: can't be made or written: {exc.strerror}")
    if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StoreFull(f"{where}: {exc.strerror}")
    if exc.errno in {errno.EEXIST, errno.ENOTDIR}:
        return StoreError(f"{where}: a folder is needed here, and something else is in the way")
    return StoreError(f"{where}: {exc.strerror or exc}")
