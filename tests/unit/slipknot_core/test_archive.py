"""Code as an archive: the same directory gives the same one, and no archive does harm."""

import io
import os
import random
import stat
import struct
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slipknot_core import archive
from slipknot_core.archive import ArchiveError, digest_of, is_digest, pack, unpack


def make(directory: Path, *names: str) -> Path:
    """Files with their own names as content."""
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return directory


def names_in(data: bytes) -> list[str]:
    """What an archive holds."""
    return zipfile.ZipFile(io.BytesIO(data)).namelist()


def content(directory: Path) -> dict[str, str]:
    """What a directory holds."""
    return {str(p.relative_to(directory)): p.read_text() for p in directory.rglob("*") if p.is_file()}


def zipped(*entries: tuple[str, bytes], mode: int = stat.S_IFREG | 0o644, **fields: int) -> bytes:
    """An archive with these entries, however evil."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in entries:
            entry = zipfile.ZipInfo("x")
            entry.filename, entry.external_attr, entry.compress_type = name, mode << 16, zipfile.ZIP_DEFLATED
            for field, value in fields.items():
                setattr(entry, field, value)
            file.writestr(entry, data)
    return buffer.getvalue()


def test_there_and_back(tmp_path: Path) -> None:
    """Files, their content and whether they can be run; the times of the original do not matter."""
    source = make(tmp_path / "a", "main.py", "pkg/__init__.py", "pkg/data/x.txt", "run.sh")
    os.chmod(source / "run.sh", 0o755)
    data = pack(source)
    os.utime(source / "main.py", (1, 1))
    assert pack(source) == data and is_digest(digest_of(data))
    unpack(io.BytesIO(data), tmp_path / "b")
    assert content(tmp_path / "b") == content(source)
    assert os.access(tmp_path / "b/run.sh", os.X_OK) and not os.access(tmp_path / "b/main.py", os.X_OK)
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o700


def test_what_is_left_out(tmp_path: Path) -> None:
    """Version control, caches, virtual environments, and what the user names."""
    source = make(
        tmp_path / "a",
        *(
            "main.py",
            ".git/config",
            "__pycache__/main.pyc",
            "pkg/__pycache__/x.pyc",
            ".venv/x",
            "env/pyvenv.cfg",
        ),
        *(
            "env/lib.py",
            "data/big.bin",
            "pkg/data/big.bin",
            "notes.md",
            "pkg/notes.md",
            "logs/a/b.log",
            "logs.py",
        ),
    )
    assert set(names_in(pack(source))) == {
        *(
            "main.py",
            "data/big.bin",
            "pkg/data/big.bin",
            "notes.md",
            "pkg/notes.md",
            "logs/a/b.log",
            "logs.py",
        )
    }
    assert set(names_in(pack(source, ["/data", "*.md", "logs/"]))) == {
        "main.py",
        "pkg/data/big.bin",
        "logs.py",
    }
    assert "logs/a/b.log" not in names_in(pack(source, ["logs/**/*.log"]))
    with pytest.raises(ValueError, match="excludes"):
        pack(source, ["!main.py"])


def test_a_directory_says_itself_what_is_not_packed(tmp_path: Path) -> None:
    """In a file of patterns with comments; options come on top."""
    source = make(tmp_path / "a", "main.py", "big.bin", "notes/x.md", "#odd")
    (source / ".slipknotignore").write_text("# large things\n\n  *.bin  \nnotes/\n")
    assert names_in(pack(source)) == ["#odd", ".slipknotignore", "main.py"]
    assert names_in(pack(source, [".*"])) == ["#odd", "main.py"]
    (source / ".slipknotignore").write_text("!main.py\n")
    with pytest.raises(ValueError, match=r"!main\.py"):
        pack(source)


def test_links_and_special_files(tmp_path: Path) -> None:
    """A link to a file inside becomes that file; one that leads out is refused; a pipe is left out."""
    source = make(tmp_path / "a", "main.py", "d/x.py")
    os.mkfifo(source / "pipe")
    (source / "alias.py").symlink_to("main.py")
    assert names_in(pack(source)) == ["alias.py", "main.py", "d/x.py"]
    (source / "out").symlink_to("/etc/hostname")
    with pytest.raises(ValueError, match="leads out"):
        pack(source)
    assert "out" not in names_in(pack(source, ["out"]))
    (source / "out").unlink()
    (source / "dir").symlink_to("d")
    with pytest.raises(ValueError, match="link to a directory"):
        pack(source)
    with pytest.raises(NotADirectoryError):
        pack(source / "main.py")


def test_bounds_of_what_is_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many, too large, too large even when compressed."""
    source = make(tmp_path / "a", "x", "y", "z")
    (source / "z").write_bytes(random.Random(1).randbytes(5000))
    for name, value in (("MAX_FILES", 2), ("MAX_UNPACKED_BYTES", 100), ("MAX_ARCHIVE_BYTES", 1000)):
        with monkeypatch.context() as patch:
            patch.setattr(archive, name, value)
            with pytest.raises(ValueError, match="runtime_env\\.excludes"):
                pack(source)


EVIL_NAMES = [
    *(
        "../x",
        "a/../../x",
        "/etc/x",
        "//x",
        "a//b",
        "./x",
        "a/.",
        "..",
        ".",
        "",
        "a\\..\\x",
        "C:\\x",
        "x\n",
        "x\0.py",
    ),
    *("x" * 300, "/".join(["d" * 200] * 6), "d/"),
]


@pytest.mark.parametrize("name", EVIL_NAMES, ids=repr)
def test_paths_that_are_refused(name: str, tmp_path: Path) -> None:
    """Nothing is written anywhere, not even what came before."""
    target = tmp_path / "t"
    with pytest.raises(ArchiveError):
        unpack(io.BytesIO(zipped(("fine.py", b"1"), (name, b"2"))), target)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFDIR]
)
def test_only_plain_files(kind: int, tmp_path: Path) -> None:
    """No links, devices, pipes."""
    with pytest.raises(ArchiveError, match="no plain file"):
        unpack(io.BytesIO(zipped(("x", b"/etc/passwd"), mode=kind | 0o777)), tmp_path / "t")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("names", [("x", "x"), ("x", "x/y"), ("x/y", "x")])
def test_one_path_twice(names: tuple[str, str], tmp_path: Path) -> None:
    """The second one is not written over the first."""
    with pytest.raises(ArchiveError, match="twice"):
        unpack(io.BytesIO(zipped(*((name, b"1") for name in names))), tmp_path / "t")


def test_bounds_of_what_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the archive says of itself: number and size of its files, its own size, that of its list."""
    data = zipped(("bomb", bytes(200_000)), ("x", b""), ("y", b""))
    for name, value, match in (
        ("MAX_UNPACKED_BYTES", 100_000, "unpacks to more"),
        ("MAX_FILES", 2, "3 files"),
        ("MAX_ARCHIVE_BYTES", 50, "bytes"),
        ("_MAX_DIRECTORY_BYTES", 20, "list of files"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(archive, name, value)
            with pytest.raises(ArchiveError, match=match):
                unpack(io.BytesIO(data), tmp_path / "t")
    lying = data.replace(struct.pack("<L", 200_000), struct.pack("<L", 10))
    with pytest.raises(ArchiveError):
        unpack(io.BytesIO(lying), tmp_path / "t")
    assert list(tmp_path.iterdir()) == []


def test_other_things(tmp_path: Path) -> None:
    """No zip file, one with something behind it, one that says it is zip64, an encrypted one."""
    good = zipped(("x", b"1"))
    for data in (b"", b"PK", b"x" * 100, good + b"x", good[:-1], good[10:]):
        with pytest.raises(ArchiveError):
            unpack(io.BytesIO(data), tmp_path / "t")
    located = good[:-22] + b"PK\x06\x07" + bytes(16) + good[-22:]
    with pytest.raises(ArchiveError, match="zip64"):
        unpack(io.BytesIO(located), tmp_path / "t")
    encrypted = bytearray(good)
    encrypted[good.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(ArchiveError):
        unpack(io.BytesIO(bytes(encrypted)), tmp_path / "t")


GOOD = zipped(("main.py", b"print(1)\n" * 20), ("pkg/__init__.py", b""), ("pkg/data.txt", b"x" * 300))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=12))
def test_whatever_is_changed_in_an_archive_it_stays_below_its_directory(
    changes: list[tuple[int, int]],
) -> None:
    """It unpacks to plain files below its directory, or is refused and leaves nothing."""
    data = bytearray(GOOD)
    for at, value in changes:
        data[at] = value
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory, "t")
        try:
            unpack(io.BytesIO(bytes(data)), target)
        except ArchiveError:
            assert os.listdir(directory) == []
        else:
            assert os.listdir(directory) == ["t"]
            assert all(p.is_dir() or (p.is_file() and not p.is_symlink()) for p in target.rglob("*"))
