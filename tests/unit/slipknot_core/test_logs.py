"""The logger `slipknot.serve`, as it is set up in every process of a cluster."""

import asyncio
import io
import json
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from slipknot_core import logs
from slipknot_core.logs import LoggingSettings, access_log, component_var, configure_logging
from slipknot_core.request_context import RequestContext, current

logger = logging.getLogger("slipknot.serve")

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"

Configure = Callable[..., io.StringIO]


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Iterator[Configure]:
    """Set up the logger as component "proxy 7" with the given settings; what it writes can be read from the
    result.
    """
    loggers = (logger, logging.getLogger("ray.serve"))
    before = [(each.handlers[:], each.level, each.propagate) for each in loggers]
    monkeypatch.setattr(logs, "_access_log_enabled", True)

    def configure(**settings: Any) -> io.StringIO:
        stream = io.StringIO()
        configure_logging("proxy", "7", LoggingSettings(**settings), stream=stream)
        return stream

    yield configure
    for each, (handlers, level, propagate) in zip(loggers, before, strict=True):
        for handler in set(each.handlers) - set(handlers):
            each.removeHandler(handler)
            handler.close()
        each.handlers[:], each.propagate = handlers, propagate
        each.setLevel(level)


@pytest.fixture
def in_request() -> Iterator[RequestContext]:
    """A request of a deployment that the test runs in."""
    request = RequestContext("r-1", route="/shop/{id}", app_name="shop", deployment_name="Model")
    token = current.set(request)
    yield request
    current.reset(token)


class _Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def test_a_line_tells_level_time_component_and_message(configure: Configure) -> None:
    """Outside a request there is no request id in it."""
    out = configure()
    logger.warning("%d replicas lost", 2)
    assert re.fullmatch(rf"WARNING {TIME} proxy 7 -- 2 replicas lost\n", out.getvalue())


def test_a_line_of_a_request_carries_its_id(configure: Configure, in_request: RequestContext) -> None:
    """Every line can be followed through all hops."""
    out = configure()
    logging.getLogger("slipknot.serve.mine").info("working")
    assert re.fullmatch(rf"INFO {TIME} proxy 7 \[r-1\] -- working\n", out.getvalue())


def test_code_written_for_ray_serve_logs_the_same_lines(
    configure: Configure, in_request: RequestContext
) -> None:
    """Through the logger that it knows; setting up again replaces what that one has, too."""
    configure()
    out = configure()
    logging.getLogger("ray.serve").info("loaded")
    logging.getLogger("ray.serve").debug("no")
    assert re.fullmatch(rf"INFO {TIME} proxy 7 \[r-1\] -- loaded\n", out.getvalue())


def test_a_request_id_cannot_forge_a_line(configure: Configure) -> None:
    """Clients choose request ids; what is not printable is escaped."""
    out = configure()
    token = current.set(RequestContext("x\nERROR forged"))
    logger.info("working")
    current.reset(token)
    assert out.getvalue().count("\n") == 1 and r"[x\nERROR forged]" in out.getvalue()


def test_several_roles_in_one_process_keep_their_names(configure: Configure) -> None:
    """Each line has the component that runs the code, the process's own where none is set."""
    out = configure()
    token = component_var.set(("shop_Model", "a1b2"))
    logger.info("from a replica")
    component_var.reset(token)
    logger.info("from the process")
    first, second = out.getvalue().splitlines()
    assert re.fullmatch(rf"INFO {TIME} shop_Model a1b2 -- from a replica", first)
    assert re.fullmatch(rf"INFO {TIME} proxy 7 -- from the process", second)


def test_an_exception_brings_its_traceback(configure: Configure) -> None:
    """It stands on the lines below the message, causes included."""
    out = configure()
    try:
        raise ValueError("broken")
    except ValueError:
        logger.exception("request failed")
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("ERROR ") and lines[0].endswith(" -- request failed")
    assert lines[1].startswith("Traceback") and lines[-1] == "ValueError: broken"


def test_json_has_the_fields_of_a_request(configure: Configure, in_request: RequestContext) -> None:
    """Programs that read logs find all that is known, and what the caller added."""
    out = configure(encoding="JSON")
    token = component_var.set(("shop_Model", "a1b2"))
    logger.info("sold %s", "a hat", extra={"price": 3, "buyer": object})
    component_var.reset(token)
    fields = json.loads(out.getvalue())
    assert re.fullmatch(TIME, fields.pop("timestamp"))
    assert isinstance(fields.pop("lineno"), int)
    assert fields == {
        "levelname": "INFO",
        "message": "sold a hat",
        "component_name": "shop_Model",
        "component_id": "a1b2",
        "filename": "test_logs.py",
        "request_id": "r-1",
        "route": "/shop/{id}",
        "application": "shop",
        "deployment": "Model",
        "replica": "a1b2",
        "price": 3,
        "buyer": "<class 'object'>",
    }


def test_json_is_one_line_with_the_traceback_inside(configure: Configure) -> None:
    """A traceback does not break the rule of one record a line; only replicas call themselves one."""
    out = configure(encoding="JSON")
    try:
        raise ValueError("broken")
    except ValueError:
        logger.exception("failed")
    (line,) = out.getvalue().splitlines()
    fields = json.loads(line)
    assert fields["exc_text"].endswith("ValueError: broken")
    assert "replica" not in fields and "request_id" not in fields


@pytest.mark.parametrize("encoding", ["TEXT", "JSON"])
def test_more_attributes_on_request(configure: Configure, encoding: str) -> None:
    """Any attribute of a log record can be had in each line."""
    out = configure(encoding=encoding, additional_log_standard_attrs=("levelno", "threadName"))
    logger.info("x")
    name = threading.current_thread().name
    if encoding == "JSON":
        fields = json.loads(out.getvalue())
        assert (fields["levelno"], fields["threadName"]) == (20, name)
    else:
        assert f" levelno=20 threadName={name} -- x" in out.getvalue()


def test_records_below_the_level_are_dropped(configure: Configure) -> None:
    """Levels are given by name in any case, or as a number."""
    for level in ("warning", logging.WARNING):
        out = configure(log_level=level)
        logger.info("no")
        logger.warning("yes")
        assert out.getvalue().count("\n") == 1 and "yes" in out.getvalue()


def test_setting_up_again_replaces_the_first(configure: Configure) -> None:
    """No line is written twice, and handlers of the user's own stay."""
    mine = logging.NullHandler()
    logger.addHandler(mine)
    first = configure()
    second = configure()
    logger.info("once")
    assert first.getvalue() == "" and second.getvalue().count("once") == 1
    assert mine in logger.handlers


# --- access log ---


def test_the_access_log_is_one_line_a_request(configure: Configure, in_request: RequestContext) -> None:
    """Method, route, status, latency."""
    out = configure()
    access_log("GET", "/shop", 200, 12.34)
    assert re.fullmatch(rf"INFO {TIME} proxy 7 \[r-1\] -- GET /shop 200 12.3ms\n", out.getvalue())


def test_the_access_log_tells_what_else_there_is_to_tell(configure: Configure) -> None:
    """Queueing, running, and why it was cancelled follow the message in text, and are fields in JSON."""
    details: dict[str, Any] = {"queue_ms": 3.04, "run_ms": 8.99, "cancel_reason": "CLIENT_DISCONNECTED"}
    out = configure()
    access_log("CALL", "predict", "CANCELLED", 12.0, **details)
    assert out.getvalue().endswith(
        "-- CALL predict CANCELLED 12.0ms queue_ms=3.0 run_ms=9.0 cancel_reason=CLIENT_DISCONNECTED\n"
    )
    out = configure(encoding="JSON")
    access_log("CALL", "predict", "CANCELLED", 12.0, **details)
    fields = json.loads(out.getvalue())
    assert fields["message"] == "CALL predict CANCELLED 12.0ms"
    assert (fields["queue_ms"], fields["run_ms"]) == (3.0, 9.0)
    assert fields["cancel_reason"] == "CLIENT_DISCONNECTED"
    assert "serve_access_log" not in fields and "access_details" not in fields


def test_a_line_of_the_access_log_is_the_same_whoever_listens(
    configure: Configure, in_request: RequestContext
) -> None:
    """On a loop lines are made without a record, unless there is another handler that wants one."""
    out = configure()
    values: list[tuple[Any, ...]] = [("GET", "/shop", 200, 12.34), ("CALL", "f", "CANCELLED", 0.04)]
    details: list[dict[str, Any]] = [
        {},
        {"queue_ms": 0.04, "run_ms": 0.06},
        {"queue_ms": 3, "run_ms": 1e4, "cancel_reason": "REQUESTED"},
    ]
    heard: list[logging.LogRecord] = []
    listener = logging.Handler()
    listener.emit = heard.append  # type: ignore[assignment]

    async def write_all() -> None:
        for more in details:
            for each in values:
                access_log(*each, **more)

    for listeners in ([], [listener]):
        logger.handlers[1:] = listeners
        asyncio.run(write_all())
        logger.handlers[0].flush()
    lines = [re.sub(TIME, "TIME", line) for line in out.getvalue().splitlines()]
    count = len(values) * len(details)
    assert len(heard) == count
    assert lines[:count] == lines[count:]
    assert lines[-1] == (
        "INFO TIME proxy 7 [r-1] -- CALL f CANCELLED 0.0ms"
        " queue_ms=3.0 run_ms=10000.0 cancel_reason=REQUESTED"
    )


@pytest.mark.parametrize("settings", [{"enable_access_log": False}, {"log_level": "WARNING"}], ids=str)
def test_an_access_log_that_nobody_wants_formats_nothing(
    configure: Configure, settings: dict[str, Any]
) -> None:
    """Turned off, or below the level, its values are not even looked at."""
    out = configure(**settings)
    access_log("GET", _Unprintable(), _Unprintable(), _Unprintable())  # type: ignore[arg-type]
    assert out.getvalue() == ""


def test_access_records_can_be_told_from_others(configure: Configure) -> None:
    """Users' handlers may filter by the mark."""
    configure()
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    logger.addHandler(Keep())
    access_log("GET", "/", 200, 1)
    logger.info("other")
    assert [getattr(record, "serve_access_log", False) for record in records] == [True, False]
    assert records[0].getMessage() == "GET / 200 1.0ms"


# --- files ---


def test_a_file_holds_what_standard_error_does_not(configure: Configure, tmp_path: Path) -> None:
    """With a directory for logs, a record may be kept from the console."""
    out = configure(logs_dir=str(tmp_path / "new" / "dir"))
    logger.info("for all")
    logger.info("for the file", extra={"log_to_stderr": False})
    assert "for the file" not in out.getvalue() and "for all" in out.getvalue()
    lines = (tmp_path / "new" / "dir" / "proxy_7.log").read_text().splitlines()
    assert [line.partition(" -- ")[2] for line in lines] == ["for all", "for the file"]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("replica_shop_a/b c_1", "replica_shop_a_b_c_1.log"),
        ("../../x", ".._.._x.log"),
        ("x" * 300, "x" * 200 + ".log"),
    ],
)
def test_a_file_name_is_safe(configure: Configure, tmp_path: Path, name: str, file: str) -> None:
    """Whatever applications are called, the file lies in the directory and can be made."""
    configure()
    configure_logging("c", "1", LoggingSettings(logs_dir=str(tmp_path)), stream=io.StringIO(), file_name=name)
    assert [path.name for path in tmp_path.iterdir()] == [file]


def test_files_are_rotated_within_bounds(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much is logged, the disk does not fill."""
    monkeypatch.setattr(logs, "MAX_FILE_BYTES", 1000)
    monkeypatch.setattr(logs, "MAX_OLD_FILES", 2)
    configure(logs_dir=str(tmp_path))
    for _ in range(100):
        logger.info("x" * 50)
    files = list(tmp_path.iterdir())
    assert len(files) == 3
    assert all(path.stat().st_size <= 1000 for path in files)


# --- nothing may break a request ---


class _Broken(io.StringIO):
    def write(self, _text: str) -> int:
        raise BrokenPipeError


def _closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("make", [_Broken, _closed])
def test_a_console_that_is_gone_does_not_break_a_request(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, make: Callable[[], io.StringIO]
) -> None:
    """The line is lost, the code goes on; complaining to the same console does not fail either."""
    configure()
    stream = make()
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging("proxy", "7", LoggingSettings(), stream=stream)
    logger.info("lost")
    access_log("GET", "/", 200, 1.0)


@pytest.mark.parametrize("encoding", ["TEXT", "JSON"])
def test_a_bad_log_call_becomes_a_line_that_says_so(configure: Configure, encoding: str) -> None:
    """Format and arguments that do not fit, and values that cannot be printed, do not raise."""
    out = configure(encoding=encoding)
    logger.info("%d replicas", "two")
    logger.info("%s", _Unprintable())
    logger.info("fine", extra={"thing": _Unprintable()})
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert "%d replicas" in lines[0] and "two" in lines[0] and "do not fit" in lines[0]
    assert "could not be formatted: RuntimeError" in lines[1]
    assert ("fine" if encoding == "TEXT" else "could not be formatted: RuntimeError") in lines[2]


def test_text_that_is_no_unicode_reaches_the_file(configure: Configure, tmp_path: Path) -> None:
    """Undecodable file names are escaped."""
    configure(logs_dir=str(tmp_path))
    logger.info("cannot read %s", "a\udcff")
    assert (tmp_path / "proxy_7.log").read_text().endswith("cannot read a\\udcff\n")


# --- settings ---


def test_settings_are_read_from_json() -> None:
    """All keys, in the form that `LoggingConfig` has on the wire; an empty text gives the defaults."""
    assert LoggingSettings.from_json("") == LoggingSettings.from_json("{}") == LoggingSettings()
    text = json.dumps(
        {
            "encoding": "JSON",
            "log_level": 10,
            "logs_dir": "/tmp/x",
            "enable_access_log": False,
            "additional_log_standard_attrs": ["name"],
        }
    )
    assert LoggingSettings.from_json(text) == LoggingSettings("JSON", 10, "/tmp/x", False, ("name",))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"encoding": "XML"}, "encoding='XML' is not allowed; use TEXT or JSON"),
        ({"encoding": ["TEXT"]}, r"encoding=\['TEXT'\] is not allowed"),
        ({"log_level": "LOUD"}, "log_level='LOUD' is not allowed; use DEBUG, INFO"),
        ({"log_level": True}, "log_level=True is not allowed"),
        ({"log_level": -1}, "log_level=-1 is not allowed"),
        ({"log_level": None}, "log_level=None is not allowed"),
        ({"logs_dir": 3}, "logs_dir=3 is not allowed; use a path"),
        ({"enable_access_log": "no"}, "enable_access_log='no' is not allowed; use true or false"),
        (
            {"additional_log_standard_attrs": "name"},
            "additional_log_standard_attrs='name' is not allowed; use a list",
        ),
        (
            {"additional_log_standard_attrs": ["nam"]},
            "additional_log_standard_attrs='nam' is not allowed; .* name, ",
        ),
        ({"level": "INFO"}, "level='INFO' is not allowed; unknown key; the keys are encoding, log_level, "),
    ],
    ids=str,
)
def test_a_wrong_setting_is_named(values: dict[str, Any], message: str) -> None:
    """The error tells key, value and remedy."""
    with pytest.raises(ValueError, match=f"^logging config: {message}"):
        LoggingSettings.from_json(json.dumps(values))


@pytest.mark.parametrize("text", ["{", "[]", "3", '"TEXT"'])
def test_what_is_no_json_object_is_refused(text: str) -> None:
    """The error shows what was given."""
    with pytest.raises(ValueError, match=f"logging config is not .*{re.escape(repr(text))}"):
        LoggingSettings.from_json(text)


def test_importing_it_is_cheap() -> None:
    """Every process of a cluster imports it before it is ready: no web framework, no sockets, no queues."""
    code = "import sys, slipknot_core.logs; print(*sorted(sys.modules))"
    modules = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=50
    )
    heavy = {"pydantic", "fastapi", "starlette", "uvicorn", "logging.handlers", "asyncio.unix_events"}
    assert heavy.isdisjoint(modules.stdout.split()) or heavy & set(modules.stdout.split()) == {
        "asyncio.unix_events"
    }
