"""A directory of code as one archive: packed the same way every time, unpacked with suspicion.

The archive is a zip file of plain files, and is named by the SHA-256 of its bytes: equal directories give
equal archives. Whoever unpacks one trusts nothing in it; the bounds are below.
"""

import hashlib
import io
import os
import re
import shutil
import stat
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

MAX_ARCHIVE_BYTES = 64 * 1024 * 1024
MAX_UNPACKED_BYTES = 512 * 1024 * 1024
MAX_FILES = 20_000
MAX_PATH_BYTES = 1024
_MAX_DIRECTORY_BYTES = 8 * 1024 * 1024
"""Of the archive's own list of files, which is read into memory."""

ALWAYS_EXCLUDED = (
    ".git",
    ".hg",
    ".svn",
    ".venv",
    "__pycache__",
    "*.pyc",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".DS_Store",
)
"""Never packed; nor is a directory that is a virtual environment, whatever its name."""

IGNORE_FILE = ".slipknotignore"
"""At the top of a directory: further patterns of what is not packed, a line each."""

_EPOCH = (1980, 1, 1, 0, 0, 0)
_END = b"PK\x05\x06"
_END_BYTES = 22
_ZIP64_LOCATOR, _ZIP64_LOCATOR_BYTES = b"PK\x06\x07", 20
_CHUNK = 1024 * 1024
_DIGEST = re.compile(r"[0-9a-f]{64}")


class ArchiveError(ValueError):
    """The archive is not what it should be; nothing of it was kept."""


def is_digest(text: str) -> bool:
    """It can be an archive's name."""
    return _DIGEST.fullmatch(text) is not None


def digest_of(data: bytes) -> str:
    """An archive's name."""
    return hashlib.sha256(data).hexdigest()


def pack(directory: Path, excludes: Sequence[str] = ()) -> bytes:
    """Make an archive of all files in a directory.

    Args:
        directory: What is in it comes to stand at the top of the archive.
        excludes: Patterns in the manner of .gitignore, without "!"; on top of `ALWAYS_EXCLUDED` and of those
            in the directory's `IGNORE_FILE`.

    Raises:
        NotADirectoryError: There is no such directory.
        ValueError: There is too much in it, or a link in it leads out of it, or a pattern is not supported.
    """
    if not directory.is_dir():
        raise NotADirectoryError(f"the working_dir {str(directory)!r} is not a directory")
    is_excluded = _excluder((*ALWAYS_EXCLUDED, *_ignored(directory), *excludes))
    buffer, total, count = io.BytesIO(), 0, 0
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in _files(directory, is_excluded):
            count, total = count + 1, total + path.stat().st_size
            _check_size(directory, total, count)
            entry = zipfile.ZipInfo(path.relative_to(directory).as_posix(), _EPOCH)
            entry.compress_type, entry.create_system = zipfile.ZIP_DEFLATED, 3
            entry.external_attr = (stat.S_IFREG | (0o755 if os.access(path, os.X_OK) else 0o644)) << 16
            archive.writestr(entry, path.read_bytes())
    data = buffer.getvalue()
    if len(data) > MAX_ARCHIVE_BYTES:
        raise ValueError(_too_much(directory, f"{len(data):,} bytes even when compressed"))
    return data


def unpack(file: BinaryIO, target: Path) -> None:
    """Unpack an archive of a stranger's into a new directory.

    Args:
        file: The archive; can be sought in.
        target: Is made; nobody else may write to the directory it is in. It is removed again on an error.

    Raises:
        ArchiveError: The archive is damaged, larger than the bounds, or holds anything but plain files that
            stay below `target`.
        OSError: The disk is full, or `target` exists.
    """
    target.mkdir(mode=0o700)
    try:
        _unpack(file, target)
    except (ArchiveError, OSError):
        shutil.rmtree(target, ignore_errors=True)
        raise
    except Exception as error:  # noqa: BLE001 - zipfile raises many things when the file is damaged
        shutil.rmtree(target, ignore_errors=True)
        raise ArchiveError(f"the archive is damaged: {error}") from None
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


# --- packing ----------------------------------------------------------------------------------------------


def _files(directory: Path, is_excluded: Callable[[str, bool], bool]) -> Iterator[Path]:
    root = directory.resolve()
    for parent, directories, names in os.walk(directory):
        relative = Path(parent).relative_to(directory)
        for name in sorted(directories):
            path = Path(parent, name)
            if is_excluded((relative / name).as_posix(), True) or (path / "pyvenv.cfg").exists():
                directories.remove(name)
            elif path.is_symlink():
                raise ValueError(f"{path} is a link to a directory; put its content there, or exclude it")
        directories.sort()
        for name in sorted(names):
            path = Path(parent, name)
            if is_excluded((relative / name).as_posix(), False):
                continue
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise ValueError(
                    f"{path} is a link that leads out of {directory}; exclude it, or copy the file"
                )
            if path.is_file():  # no sockets, pipes, devices, nor links to nothing
                yield path


def _ignored(directory: Path) -> list[str]:
    try:
        lines = (directory / IGNORE_FILE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [line.strip() for line in lines if not line.lstrip().startswith("#")]


def _excluder(patterns: Sequence[str]) -> Callable[[str, bool], bool]:
    compiled = [_compiled(pattern) for pattern in patterns if pattern.strip()]

    def is_excluded(path: str, is_directory: bool) -> bool:
        return any(
            (is_directory or not only_directories) and expression.fullmatch(path)
            for expression, only_directories in compiled
        )

    return is_excluded


def _compiled(pattern: str) -> tuple[re.Pattern[str], bool]:
    """As in .gitignore: a pattern with a slash before its end counts from the top, another one anywhere."""
    if pattern.startswith("!"):
        raise ValueError(
            f"the pattern {pattern!r} of excludes is not supported: nothing can be included again"
        )
    only_directories = pattern.endswith("/")
    text = pattern.rstrip("/")
    prefix = "" if "/" in text else "(?:.*/)?"
    text = text.lstrip("/")
    translated = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", text)
    return re.compile(
        prefix + "".join(translated.get(part, re.escape(part)) for part in parts)
    ), only_directories


def _check_size(directory: Path, total: int, count: int) -> None:
    if total > MAX_UNPACKED_BYTES:
        raise ValueError(_too_much(directory, f"more than {MAX_UNPACKED_BYTES:,} bytes"))
    if count > MAX_FILES:
        raise ValueError(_too_much(directory, f"more than {MAX_FILES:,} files"))


def _too_much(directory: Path, what: str) -> str:
    return (
        f"the working_dir {str(directory)!r} has {what}; name what is not needed in runtime_env.excludes "
        f"or in its file {IGNORE_FILE}; large data belongs where the nodes can read it"
    )


# --- unpacking --------------------------------------------------------------------------------------------


def _unpack(file: BinaryIO, target: Path) -> None:
    _check_end(file)
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if len(entries) > MAX_FILES:
            raise ArchiveError(f"the archive has {len(entries):,} files; {MAX_FILES:,} are allowed")
        left = MAX_UNPACKED_BYTES
        for entry in entries:
            left -= _unpack_one(archive, entry, target, left)


def _check_end(file: BinaryIO) -> None:
    """Look at the last record before zipfile believes it: it says how much is read into memory."""
    size = file.seek(0, os.SEEK_END)
    if size > MAX_ARCHIVE_BYTES:
        raise ArchiveError(f"the archive has {size:,} bytes; {MAX_ARCHIVE_BYTES:,} are allowed")
    file.seek(max(0, size - _END_BYTES - _ZIP64_LOCATOR_BYTES))
    end = file.read()
    record = end[-_END_BYTES:]
    if len(record) < _END_BYTES or not record.startswith(_END):
        raise ArchiveError("the archive is no zip file, or something follows it")
    if end[:-_END_BYTES].startswith(_ZIP64_LOCATOR):
        raise ArchiveError("the archive is a zip64 file; no archive of ours is so large")
    if int.from_bytes(record[12:16], "little") > _MAX_DIRECTORY_BYTES:
        raise ArchiveError("the archive's list of files is too long")


def _unpack_one(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, left: int) -> int:
    """Write one file; returns its size."""
    parts = _checked_parts(entry)
    if entry.file_size > left:
        raise ArchiveError(f"the archive unpacks to more than {MAX_UNPACKED_BYTES:,} bytes")
    path = target.joinpath(*parts)
    mode = 0o700 if (entry.external_attr >> 16) & 0o100 else 0o600
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, mode)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise ArchiveError(
            f"the archive has {entry.filename!r} twice, or as a file and a directory"
        ) from None
    size = 0
    with os.fdopen(fd, "wb") as output, archive.open(entry) as source:
        while chunk := source.read(_CHUNK):
            size += len(chunk)
            if size > left:
                raise ArchiveError(f"the archive unpacks to more than {MAX_UNPACKED_BYTES:,} bytes")
            output.write(chunk)
    return size


def _checked_parts(entry: zipfile.ZipInfo) -> tuple[str, ...]:
    """The path of an entry that is a plain file below the top.

    Raises:
        ArchiveError: It is something else.
    """
    name = entry.orig_filename
    parts = tuple(name.split("/"))
    is_plain = stat.S_IFMT(entry.external_attr >> 16) in (0, stat.S_IFREG)
    if entry.header_offset < 0:
        raise ArchiveError("the archive is damaged: a file begins before its beginning")
    if not is_plain or name.endswith("/") or entry.flag_bits & 0x1:
        raise ArchiveError(f"the archive's {name[:100]!r} is no plain file")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ArchiveError(f"the archive's {name[:100]!r} is compressed in an unknown way")
    if (
        any(part in ("", ".", "..") or len(os.fsencode(part)) > 255 for part in parts)
        or PurePosixPath(name).is_absolute()
        or "\\" in name
        or not name.isprintable()
        or len(os.fsencode(name)) > MAX_PATH_BYTES
    ):
        raise ArchiveError(f"the archive has the path {name[:100]!r}, which is not allowed")
    return parts
