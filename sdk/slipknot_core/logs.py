"""The logger `slipknot.serve`: line format, JSON, files, and access-log lines.

One line: `LEVEL YYYY-mm-dd HH:MM:SS,mmm <component> <id> [<request id>] -- <message>`. Nothing here raises
into the code that logs: a record that cannot be formatted becomes a line that says so, a line that cannot be
written is lost.
"""

import asyncio
import json
import logging
import os
import sys
import time
import traceback
from contextvars import ContextVar
from dataclasses import dataclass, fields
from typing import Any, TextIO

from .ids import posix_safe
from .request_context import current
from .tracing import trace_ids

LOGGER_NAME = "slipknot.serve"
"""Users' code logs through it too."""

RAY_SERVE_LOGGER_NAME = "ray.serve"
"""Through which applications written for Ray Serve log: the same lines."""

MAX_FILE_BYTES = 64 * 1024 * 1024
"""A log file is rotated before it grows beyond this."""
MAX_OLD_FILES = 5
"""Rotated files that are kept."""
MAX_FILE_NAME_CHARS = 200
"""Longer names keep their end, which holds the id."""

component_var: ContextVar[tuple[str, str] | None] = ContextVar("slipknot_component", default=None)
"""(name, id) of the role that runs this code, where one process holds several; None: the process's own."""

_STANDARD_ATTRS = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {
    "message",
    "asctime",
    "taskName",
}
_OWN_EXTRAS = frozenset({"log_to_stderr", "serve_access_log", "access_details"})


@dataclass(frozen=True, slots=True)
class LoggingSettings:
    """How one component logs.

    Raises:
        ValueError: A value is not allowed; the message names key and value.
    """

    encoding: str = "TEXT"
    """TEXT or JSON."""
    log_level: int | str = "INFO"
    """A level's name or number; records below it are dropped."""
    logs_dir: str | None = None
    """Directory of the component's log file; None: no file."""
    enable_access_log: bool = True
    """One line for each request."""
    additional_log_standard_attrs: tuple[str, ...] = ()
    """Attributes of `logging.LogRecord` to add to each line."""

    def __post_init__(self) -> None:
        if self.encoding not in ("TEXT", "JSON"):
            raise _invalid("encoding", self.encoding, "use TEXT or JSON")
        if self.logs_dir is not None and not isinstance(self.logs_dir, str):
            raise _invalid("logs_dir", self.logs_dir, "use a path or null")
        if not isinstance(self.enable_access_log, bool):
            raise _invalid("enable_access_log", self.enable_access_log, "use true or false")
        for name in self.additional_log_standard_attrs:
            if name not in _STANDARD_ATTRS:
                known = ", ".join(sorted(_STANDARD_ATTRS))
                raise _invalid("additional_log_standard_attrs", name, f"use attributes of LogRecord: {known}")
        _level_number(self.log_level)

    @property
    def level(self) -> int:
        """The level's number."""
        return _level_number(self.log_level)

    @classmethod
    def from_json(cls, text: str) -> "LoggingSettings":
        """Read a JSON object; an empty text gives the defaults.

        Raises:
            ValueError: The text is no JSON object, has an unknown key, or a value that is not allowed.
        """
        if not text:
            return cls()
        try:
            values = json.loads(text)
        except ValueError as error:
            raise ValueError(f"logging config is not JSON: {error}; got {text[:100]!r}") from error
        if not isinstance(values, dict):
            raise ValueError(f"logging config is not a JSON object: {text[:100]!r}")
        known = [field.name for field in fields(cls)]
        for key, value in values.items():
            if key not in known:
                raise _invalid(key, value, f"unknown key; the keys are {', '.join(known)}")
        return cls(**values | _additional_attrs(values))


def completed_json(specific: str, general: str) -> str:
    """The logging settings of a deployment, as JSON, with what it takes over from the cluster.

    Args:
        specific: The deployment's own, complete but for the directory; empty: it has none.
        general: The cluster's; empty: the defaults.
    """
    if not specific or not general:
        return specific or general
    values = json.loads(specific)
    if values.get("logs_dir") is None:
        values["logs_dir"] = json.loads(general).get("logs_dir")
    return json.dumps(values)


def configure_logging(
    component_name: str,
    component_id: str,
    settings: LoggingSettings,
    *,
    stream: TextIO | None = None,
    file_name: str = "",
) -> None:
    """Set up the logger `slipknot.serve` of this process; what an earlier call has set up is replaced.

    Args:
        component_name: Stands in each line: "proxy", "controller", or a replica's "<app>_<deployment>".
        component_id: Stands behind it.
        settings: What to log, and how.
        stream: Where lines go; None: standard error as it is now.
        file_name: Name of the file in `settings.logs_dir`, without ".log"; empty: the component's name, id.

    Raises:
        OSError: The log file cannot be opened.
    """
    global _access_log_enabled, _console
    formatter = _formatter(settings, (component_name, component_id))
    handlers: list[logging.Handler] = []
    console = stream if stream is not None else sys.stderr
    _console = None if console is None else _ConsoleHandler(console)
    if _console is not None:
        handlers.append(_console)
    if settings.logs_dir is not None:
        handlers.append(_file_handler(settings.logs_dir, file_name or f"{component_name}_{component_id}"))
    for handler in handlers:
        handler.setFormatter(formatter)
    for logger in (_logger, logging.getLogger(RAY_SERVE_LOGGER_NAME)):
        for old in [*logger.handlers]:
            if isinstance(old, _ConsoleHandler) or hasattr(old, "is_slipknot_file"):
                logger.removeHandler(old)
                old.close()
        for handler in handlers:
            logger.addHandler(handler)
        logger.setLevel(settings.level)
        logger.propagate = False
    _access_log_enabled = settings.enable_access_log


def access_log(
    method: str,
    route: str,
    status: int | str,
    latency_ms: float,
    *,
    queue_ms: float = 0,
    run_ms: float = 0,
    cancel_reason: str = "",
) -> None:
    """Log the end of a request: "METHOD ROUTE STATUS 12.3ms"; costs next to nothing where it is not wanted.

    Args:
        method: HTTP method, "WS", or "CALL".
        route: Route template, or method name of a handle call.
        status: HTTP status, close code, or OK, ERROR, CANCELLED.
        latency_ms: From the request's arrival to its end.
        queue_ms: Time it waited. This and what follows are fields in JSON and stand behind the message in
            TEXT, unless they are empty.
        run_ms: Time it ran.
        cancel_reason: Name of the reason if it was cancelled.
    """
    if not _access_log_enabled or not _logger.isEnabledFor(logging.INFO):
        return
    details = (queue_ms, run_ms, cancel_reason)
    if _console is not None and _console.is_alone():
        loop = asyncio._get_running_loop()
        if loop is not None:
            message = f"{method} {route} {status} {latency_ms:.1f}ms"
            _console.write_soon(_console.text.access_line(message, details), loop)
            return
    # Made by hand: looking for the caller's line costs more than the rest, and it is always this one.
    record = logging.LogRecord(
        LOGGER_NAME, logging.INFO, __file__, 0, "%s %s %s %.1fms", (method, route, status, latency_ms), None
    )
    record.serve_access_log = True
    record.access_details = details
    _logger.handle(record)


ACCESS_LOG_DELAY_S = 0.01
"""Lines of the access log may come so much later on the console, and are written together."""

MAX_WAITING_LINES = 512

LEAST_MS = 0.05
"""Less would be written as 0.0."""

_logger = logging.getLogger(LOGGER_NAME)
_access_log_enabled = True
_console: "_ConsoleHandler | None" = None
"""Where lines of this process go, if anywhere."""


class _ConsoleHandler(logging.StreamHandler[TextIO]):
    """Lines of the access log wait a moment for company, since writing one costs more than making it;
    everything else is written at once, behind those that wait.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lines: list[str] = []
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.addFilter(lambda record: getattr(record, "log_to_stderr", True) is not False)

    @property
    def text(self) -> "_TextFormatter":
        """How it formats, if `is_alone`."""
        assert isinstance(self.formatter, _TextFormatter)
        return self.formatter

    def is_alone(self) -> bool:
        """Nobody else sees, filters or shapes its lines: then no record needs to be made of one."""
        return (
            len(_logger.handlers) == 1
            and _logger.handlers[0] is self
            and len(self.filters) == 1
            and self.level <= logging.INFO
            and not _logger.filters
            and not _logger.propagate
            and type(self.formatter) is _TextFormatter
            and not self.formatter.attrs
        )

    def write_soon(self, line: str, loop: asyncio.AbstractEventLoop) -> None:
        """Write a line of the access log with those that come soon after it."""
        self.acquire()
        try:
            if len(self._lines) >= MAX_WAITING_LINES:
                self._write_lines()
            self._lines.append(line)
            if self._timer is None or self._loop is not loop:
                self._loop, self._timer = loop, loop.call_later(ACCESS_LOG_DELAY_S, self._on_time)
        finally:
            self.release()

    def emit(self, record: logging.LogRecord) -> None:
        loop = asyncio._get_running_loop() if hasattr(record, "access_details") else None
        if loop is None:
            self._write_lines()
            super().emit(record)
        else:
            self.write_soon(self.format(record), loop)

    def flush(self) -> None:
        self._write_lines()
        super().flush()

    def handleError(self, record: logging.LogRecord) -> None:
        _lose(record)

    def _on_time(self) -> None:
        self.acquire()
        try:
            self._timer = None
            self.flush()
        finally:
            self.release()

    def _write_lines(self) -> None:
        lines, self._lines = self._lines, []
        if lines:
            try:
                self.stream.write(self.terminator.join(lines) + self.terminator)
                super().flush()
            except (OSError, ValueError):
                pass  # the console is closed: nowhere is left to say it


class _Formatter(logging.Formatter):
    """What both encodings share; `format` never raises."""

    def __init__(self, component: tuple[str, str], attrs: tuple[str, ...]) -> None:
        super().__init__()
        self._component = component
        self.attrs = attrs
        self._second = (-1, "")

    def format(self, record: logging.LogRecord) -> str:
        try:
            return self._format(record, _message(record))
        except Exception as error:  # noqa: BLE001 - values of the user's: their __str__ may raise anything
            return self._format(_bare(record), f"a log record could not be formatted: {type(error).__name__}")

    def _format(self, record: logging.LogRecord, message: str) -> str:
        raise NotImplementedError

    def _time(self, created_s: float) -> str:
        second = int(created_s)
        cached = self._second  # replaced as a whole, so that threads need no lock
        if cached[0] != second:
            self._second = cached = (second, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second)))
        return f"{cached[1]},{int((created_s - second) * 1000):03d}"


class _TextFormatter(_Formatter):
    def access_line(self, message: str, details: tuple[float, float, str]) -> str:
        """A line of the access log, without a record."""
        return f"{self._prefix('INFO', time.time())} -- {message}{_details_text(details)}"

    def _format(self, record: logging.LogRecord, message: str) -> str:
        attrs = "".join(f" {attr}={getattr(record, attr, None)}" for attr in self.attrs)
        line = f"{self._prefix(record.levelname, record.created)}{attrs} -- {message}"
        details = getattr(record, "access_details", None)
        if details is not None:
            line += _details_text(details)
        trace = _trace(record)
        return f"{line}\n{trace}" if trace else line

    def _prefix(self, level: str, created_s: float) -> str:
        name, component_id = component_var.get() or self._component
        request = current.get()
        request_part = f" [{_one_line(request.request_id)}]" if request else ""
        return f"{level} {self._time(created_s)} {name} {component_id}{request_part}"


class _JsonFormatter(_Formatter):
    def _format(self, record: logging.LogRecord, message: str) -> str:
        name, component_id = component_var.get() or self._component
        values: dict[str, Any] = {
            "timestamp": self._time(record.created),
            "levelname": record.levelname,
            "message": message,
            "component_name": name,
            "component_id": component_id,
            "filename": record.filename,
            "lineno": record.lineno,
        }
        request = current.get()
        if request is not None:
            values |= {"request_id": request.request_id, "route": request.route}
            if request.traceparent:
                values |= zip(("trace_id", "span_id"), trace_ids(request.traceparent), strict=True)
            if request.deployment_name:
                values |= {"application": request.app_name, "deployment": request.deployment_name}
                # Only a replica is named after its deployment.
                if name == f"{request.app_name}_{request.deployment_name}":
                    values["replica"] = component_id
        values |= _access_details(record)
        values |= {attr: getattr(record, attr, None) for attr in self.attrs}
        for key, value in vars(record).items():
            if key not in _STANDARD_ATTRS and key not in _OWN_EXTRAS:
                values.setdefault(key, value)
        trace = _trace(record)
        if trace:
            values["exc_text"] = trace
        return json.dumps(values, default=str)


def _formatter(settings: LoggingSettings, component: tuple[str, str]) -> _Formatter:
    kind = _JsonFormatter if settings.encoding == "JSON" else _TextFormatter
    return kind(component, settings.additional_log_standard_attrs)


def _file_handler(logs_dir: str, name: str) -> logging.Handler:
    from logging.handlers import RotatingFileHandler  # imports sockets, queues and pickle

    class FileHandler(RotatingFileHandler):
        is_slipknot_file = True

        def handleError(self, record: logging.LogRecord) -> None:
            _lose(record)

    os.makedirs(logs_dir, exist_ok=True)
    path = os.path.join(logs_dir, posix_safe(name)[-MAX_FILE_NAME_CHARS:] + ".log")
    return FileHandler(
        path,
        maxBytes=MAX_FILE_BYTES,
        backupCount=MAX_OLD_FILES,
        encoding="utf-8",
        errors="backslashreplace",
    )


def _lose(_record: logging.LogRecord) -> None:
    """The disk is full or the console is closed: nowhere is left to say it; requests must go on."""


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError) as error:  # the format does not fit its arguments
        return f"{record.msg} {record.args!r} (the arguments do not fit: {error})"


def _bare(record: logging.LogRecord) -> logging.LogRecord:
    bare = logging.LogRecord(record.name, record.levelno, record.pathname, record.lineno, "", (), None)
    bare.created = record.created
    return bare


def _access_details(record: logging.LogRecord) -> dict[str, Any]:
    queue_ms, run_ms, cancel_reason = getattr(record, "access_details", (0, 0, ""))
    details = {
        "queue_ms": round(float(queue_ms), 1),
        "run_ms": round(float(run_ms), 1),
        "cancel_reason": cancel_reason,
    }
    return {key: value for key, value in details.items() if value}


def _details_text(details: tuple[float, float, str]) -> str:
    queue_ms, run_ms, cancel_reason = details
    text = f" queue_ms={queue_ms:.1f}" if queue_ms >= LEAST_MS else ""
    if run_ms >= LEAST_MS:
        text += f" run_ms={run_ms:.1f}"
    return f"{text} cancel_reason={cancel_reason}" if cancel_reason else text


def _trace(record: logging.LogRecord) -> str:
    # Not `Formatter.formatException`: it keeps its text in the record, where other formatters find it.
    parts = []
    if isinstance(record.exc_info, tuple) and record.exc_info[1] is not None:
        parts.append("".join(traceback.format_exception(record.exc_info[1])).rstrip("\n"))
    elif record.exc_text:
        parts.append(record.exc_text)
    if record.stack_info:
        parts.append(record.stack_info)
    return "\n".join(parts)


def _one_line(text: str) -> str:
    """A client's request id must not be able to forge lines."""
    return text if text.isprintable() else repr(text)[1:-1]


def _level_number(level: object) -> int:
    if isinstance(level, int) and not isinstance(level, bool) and level >= 0:
        return level
    number = logging.getLevelNamesMapping().get(level.upper()) if isinstance(level, str) else None
    if number is None:
        raise _invalid("log_level", level, "use DEBUG, INFO, WARNING, ERROR, CRITICAL or a number")
    return number


def _additional_attrs(values: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    key = "additional_log_standard_attrs"
    attrs = values.get(key, [])
    if not isinstance(attrs, list) or not all(isinstance(attr, str) for attr in attrs):
        raise _invalid(key, attrs, "use a list of attribute names")
    return {key: tuple(attrs)}


def _invalid(key: str, value: object, remedy: str) -> ValueError:
    return ValueError(f"logging config: {key}={value!r} is not allowed; {remedy}")
