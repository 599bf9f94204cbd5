"""Output of child processes, carried line by line to where people read it.

Guarantees: whole lines stay whole, each with its prefix; nobody's memory grows beyond the bounds below; a
console that does not take anything any more (full pipe, suspended terminal) slows a process that prints for
at most `STALL_S`; after that lines are dropped and counted, and the count is told as soon as the console
moves again.
"""

import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable

MAX_LINE_BYTES = 64 * 1024
"""Longer lines are cut into several."""
MAX_PENDING_BYTES = 4 * 1024 * 1024
"""Output that waits for the console."""
STALL_S = 0.5
"""A console that took nothing for so long is stuck."""

Write = Callable[[int, bytes], None]
"""Writes whole lines to stream 1 (standard output) or 2 (standard error); may block, and must not raise."""


class LineBuffer:
    """Turns chunks of output into whole lines."""

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._partial = b""
        self._max_line_bytes = max_line_bytes

    def feed(self, chunk: bytes) -> bytes:
        """Take a chunk; return the lines that are complete now, each with its newline."""
        whole, newline, self._partial = (self._partial + chunk).rpartition(b"\n")
        if len(self._partial) < self._max_line_bytes:
            return whole + newline
        cut = len(self._partial) - len(self._partial) % self._max_line_bytes
        long, self._partial = self._partial[:cut], self._partial[cut:]
        pieces = [long[at : at + self._max_line_bytes] for at in range(0, cut, self._max_line_bytes)]
        return whole + newline + b"\n".join(pieces) + b"\n"

    def flush(self) -> bytes:
        """Return what stands in an unfinished line, finished."""
        rest, self._partial = self._partial, b""
        return rest + b"\n" if rest else b""


class Tail:
    """The last bytes of an output. Fed in the pump's thread; read after its end."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._data = b""

    def feed(self, chunk: bytes) -> None:
        """Take a chunk."""
        self._data = (self._data + chunk)[-self._max_bytes :]

    def text(self) -> str:
        """What was kept, as text."""
        return self._data.decode("utf-8", "replace")


def prefix_lines(lines: bytes, prefix: bytes) -> bytes:
    """Put `prefix` before each of the whole `lines`."""
    if not lines or not prefix:
        return lines
    return prefix + lines[:-1].replace(b"\n", b"\n" + prefix) + b"\n"


class _Source:
    def __init__(
        self, fd: int, stream: int, prefix: bytes, tail: Tail | None, on_end: Callable[[], None] | None
    ) -> None:
        self.fd, self.stream, self.prefix, self.tail, self.on_end = fd, stream, prefix, tail, on_end
        self.lines = LineBuffer()


class OutputPump:
    """Two threads between children and the console: one reads, one writes. `repr` tells sources and bytes
    that wait.
    """

    def __init__(self, write: Write, *, max_pending_bytes: int = MAX_PENDING_BYTES) -> None:
        self._write = write
        self._max_pending_bytes = max_pending_bytes
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._added: deque[_Source] = deque()
        self._source_count = 0
        # Guarded by the condition: what waits for the writer, and how the writer is doing.
        self._changed = threading.Condition()
        self._pending: deque[tuple[int, bytes]] = deque()
        self._pending_bytes = 0
        self._dropped_lines = 0
        self._progress_at_s = time.monotonic()
        self._stop_at_s: float | None = None
        self._reader_ended = False
        self._reader = threading.Thread(target=self._read, name="output-reader", daemon=True)
        self._writer = threading.Thread(target=self._write_pending, name="output-writer", daemon=True)

    def __repr__(self) -> str:
        return f"<OutputPump {self._source_count} sources, {self._pending_bytes} bytes pending>"

    def start(self) -> None:
        """Start the threads."""
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._reader.start()
        self._writer.start()

    def add(
        self,
        fd: int,
        *,
        stream: int,
        prefix: str = "",
        tail: Tail | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        """Carry what comes out of `fd` to the console; the pump closes it at its end.

        Args:
            fd: Read end of a pipe; becomes this pump's own.
            stream: 1 or 2.
            prefix: Stands before each line.
            tail: Also gets every byte.
            on_end: Called in the pump's thread after the last byte.
        """
        self._added.append(_Source(fd, stream, prefix.encode(), tail, on_end))
        self._wake()

    def stop(self, timeout_s: float = 2.0) -> None:
        """Carry on until all sources have ended and everything is written, at most `timeout_s`; twice is
        fine.
        """
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            self._stop_at_s = deadline_s
        self._wake()
        if self._reader.ident is None:
            return
        self._reader.join(max(0.0, deadline_s - time.monotonic()))
        self._writer.join(max(0.0, deadline_s - time.monotonic()))

    def _wake(self) -> None:
        try:
            os.write(self._wake_write, b"x")
        except (BlockingIOError, OSError):  # it is awake already, or has ended
            pass

    def _read(self) -> None:
        while True:
            stop_at_s = self._stop_at_s
            timeout_s = None if stop_at_s is None else stop_at_s - time.monotonic()
            if timeout_s is not None and (timeout_s <= 0 or not (self._source_count or self._added)):
                break
            for key, _ in self._selector.select(timeout_s):
                if key.fd == self._wake_read:
                    os.read(self._wake_read, 4096)
                else:
                    self._read_source(key.data)
            while self._added:
                source = self._added.popleft()
                self._selector.register(source.fd, selectors.EVENT_READ, source)
                self._source_count += 1
        self._end_reading()

    def _read_source(self, source: _Source) -> None:
        try:
            chunk = os.read(source.fd, 65536)
        except OSError:  # a terminal says EIO at its end
            chunk = b""
        if source.tail is not None:
            source.tail.feed(chunk)
        self._put(source, source.lines.feed(chunk) if chunk else source.lines.flush())
        if not chunk:
            self._close_source(source)

    def _close_source(self, source: _Source) -> None:
        self._selector.unregister(source.fd)
        os.close(source.fd)
        self._source_count -= 1
        if source.on_end is not None:
            source.on_end()

    def _end_reading(self) -> None:
        for key in list(self._selector.get_map().values()):
            if key.fd != self._wake_read:
                self._put(key.data, key.data.lines.flush())
                self._close_source(key.data)
        with self._changed:
            self._reader_ended = True
            self._changed.notify_all()
        self._selector.close()

    def _put(self, source: _Source, lines: bytes) -> None:
        if not lines:
            return
        with self._changed:
            while self._pending_bytes + len(lines) > self._max_pending_bytes and self._pending:
                stalled_for_s = time.monotonic() - self._progress_at_s
                if stalled_for_s >= STALL_S:
                    self._dropped_lines += lines.count(b"\n")
                    return
                self._changed.wait(STALL_S - stalled_for_s)
            lines = prefix_lines(lines, source.prefix)
            if not self._pending:
                self._progress_at_s = time.monotonic()
            self._pending.append((source.stream, lines))
            self._pending_bytes += len(lines)
            self._changed.notify_all()

    def _write_pending(self) -> None:
        while True:
            with self._changed:
                while not self._pending:
                    if self._reader_ended:
                        return
                    self._changed.wait()
                stream, lines = self._pending[0]
            self._write(stream, lines)
            with self._changed:
                self._pending.popleft()
                self._pending_bytes -= len(lines)
                self._progress_at_s = time.monotonic()
                dropped, self._dropped_lines = self._dropped_lines, 0
                if dropped:
                    note = f"slipknot: {dropped} lines were dropped because this console was stuck\n".encode()
                    self._pending.appendleft((2, note))
                    self._pending_bytes += len(note)
                self._changed.notify_all()


def write_fd(stream: int, lines: bytes) -> None:
    """A `Write` to this process's own standard output and error; what a closed one does not take is gone."""
    try:
        while lines:
            lines = lines[os.write(stream, lines) :]
    except OSError:
        pass
