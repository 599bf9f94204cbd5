"""The private directory of an embedded cluster: where it is, who owns it, which clusters are alive.

One directory a cluster, of mode 0700, below a base directory of the user's own. The launcher holds a lock on
the file `lock` in it for as long as it lives; a directory whose lock can be had belongs to a dead launcher
and is removed by the next one. Addresses stand in `cluster.json`.
"""

import fcntl
import json
import os
import shutil
import stat
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from .ids import short_id

MAX_DIRECTORY_BYTES = 59
"""Unix socket paths end at 104 to 108 bytes; this leaves 40 for names in the directory."""

_LOCK = "lock"
_INFO = "cluster.json"
_UNLOCKED_GRACE_S = 60.0
"""A directory without a lock file is younger than this while its launcher starts."""


@dataclass(frozen=True, slots=True)
class ClusterInfo:
    """Where a running embedded cluster is reached."""

    controller_address: str
    """gRPC address, "unix:/path" or "host:port"."""
    http_address: str
    """"host:port"; empty without a proxy."""
    gateway_address: str
    """"host:port"; empty without a gateway."""
    runtime_dir: str
    launcher_pid: int
    is_detached: bool = False
    """It stays when whoever started it ends."""


class RuntimeDir:
    """The directory of one cluster, held by its launcher. `repr` tells its path."""

    def __init__(self, path: Path, lock_fd: int) -> None:
        self.path = path
        self._lock_fd = lock_fd

    def __repr__(self) -> str:
        return f"<RuntimeDir {self.path}>"

    @classmethod
    def create(cls, base: Path | None = None) -> "RuntimeDir":
        """Make a new one, and remove those that dead launchers left behind.

        Args:
            base: Directory to make it in; `base_dir()` if None.

        Raises:
            PermissionError: The base directory is not private to this user.
            ValueError: The path is too long for Unix sockets.
        """
        base = base_dir() if base is None else base
        check_length(base)
        make_private(base)
        remove_stale(base)
        path = base / short_id()
        path.mkdir(mode=0o700)
        new = path / f"{_LOCK}.new"
        lock_fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        new.rename(path / _LOCK)  # it is never seen unlocked: a launcher that looks would remove all this
        return cls(path, lock_fd)

    def address(self, name: str) -> str:
        """gRPC address of the Unix socket `name` in this directory."""
        return f"unix:{self.path / name}"

    def subdirectory(self, name: str) -> Path:
        """Make a private directory in this one."""
        path = self.path / name
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def publish(self, info: ClusterInfo) -> None:
        """Let `find_clusters` find this cluster."""
        temporary = self.path / f"{_INFO}.new"
        temporary.write_text(json.dumps(asdict(info)))
        temporary.replace(self.path / _INFO)

    def remove(self) -> None:
        """Remove the directory and let go of the lock; calling it twice is fine."""
        if self._lock_fd < 0:
            return
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock_fd)
        self._lock_fd = -1


def base_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Directory of this user's clusters: `SLIPKNOT_RUNTIME_DIR`, else in `XDG_RUNTIME_DIR` if that is usable,
    else in /tmp.
    """
    chosen = environ.get("SLIPKNOT_RUNTIME_DIR")
    if chosen:
        return Path(chosen).absolute()
    session_dir = environ.get("XDG_RUNTIME_DIR")
    if session_dir and os.access(session_dir, os.W_OK | os.X_OK):
        path = Path(session_dir).absolute() / "slipknot"
        if os.stat(session_dir).st_uid == os.geteuid() and _fits(path):
            return path
    return Path(f"/tmp/slipknot-{os.geteuid()}")


def check_length(base: Path) -> None:
    """Refuse a base directory whose Unix sockets would have too long paths.

    Raises:
        ValueError: Names the path and the remedy.
    """
    if not _fits(base):
        limit = MAX_DIRECTORY_BYTES - 9
        raise ValueError(
            f"the runtime directory {str(base)!r} is too long for Unix sockets ({limit} bytes at most); "
            "set SLIPKNOT_RUNTIME_DIR to a shorter path"
        )


def make_private(path: Path) -> None:
    """Make `path` a directory that only this user can enter, or refuse it.

    Raises:
        PermissionError: Somebody else owns it or may enter it, or it is a link.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        pass
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise PermissionError(
            f"{path} is not a directory; remove it or set SLIPKNOT_RUNTIME_DIR to another path"
        )
    if status.st_uid != os.geteuid():
        raise PermissionError(
            f"{path} belongs to user {status.st_uid}, not to you; "
            "set SLIPKNOT_RUNTIME_DIR to a directory of your own"
        )
    if status.st_mode & 0o077:
        raise PermissionError(f"{path} can be entered by other users; make it private: chmod 700 {path}")


def find_clusters(base: Path | None = None) -> list[ClusterInfo]:
    """The clusters of this user whose launchers are alive, oldest first."""
    base = base_dir() if base is None else base
    found = [
        pair
        for file in base.glob(f"*/{_INFO}")
        if _is_alive(file.parent) and (pair := _read_info(file)) is not None
    ]
    return [info for _, info in sorted(found, key=lambda pair: pair[0])]


def remove_stale(base: Path) -> None:
    """Remove the directories of dead launchers."""
    for path in base.iterdir():
        if path.is_dir() and not path.is_symlink() and not _is_alive(path):
            shutil.rmtree(path, ignore_errors=True)


def _fits(base: Path) -> bool:
    return len(os.fsencode(base)) + 9 <= MAX_DIRECTORY_BYTES


def _is_alive(path: Path) -> bool:
    try:
        fd = os.open(path / _LOCK, os.O_RDWR)
    except FileNotFoundError:
        try:
            return time.time() - path.stat().st_mtime < _UNLOCKED_GRACE_S
        except FileNotFoundError:
            return False
    try:
        # Shared, so that two processes that look at once do not take each other for a launcher.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _read_info(file: Path) -> tuple[float, ClusterInfo] | None:
    """When a cluster was published, and what it published."""
    try:
        return file.stat().st_mtime, ClusterInfo(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):  # just removed, or written by another version
        return None
