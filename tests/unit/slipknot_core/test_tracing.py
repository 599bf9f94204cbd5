"""Trace contexts, settings of tracing, and that nothing is imported while it is off."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipknot_core.logs import completed_json
from slipknot_core.settings import tracing_settings
from slipknot_core.tracing import TracingSettings, trace_context, trace_ids

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize("good", [f"00-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-00-more"])
def test_trace_contexts(good: str) -> None:
    assert trace_context(good, "a=b") == (good, "a=b")
    assert trace_context(good, "a\n") == trace_context(good, "x" * 513) == (good, "")
    assert trace_ids(good) == (TRACE, SPAN)


@given(st.text() | st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{31,33}-[0-9a-f]{16}-[0-9a-f]{2}\n?", fullmatch=True))
def test_anything_else_is_none_or_as_it_came(text: str) -> None:
    """A second check agrees with the first."""
    traceparent, tracestate = trace_context(text, "a=b")
    assert (traceparent, tracestate) in ((text, "a=b"), ("", ""))
    assert bool(traceparent) == bool(trace_ids(text)[0]) or len(text) > 512
    assert "\n" not in traceparent


def test_settings_from_the_environment() -> None:
    assert tracing_settings({}) == TracingSettings()
    settings = TracingSettings(True, "module:function", 0.5)
    assert tracing_settings(settings.environment()) == settings
    assert not tracing_settings(TracingSettings().environment()).enabled
    for name, value in (("ENABLED", "maybe"), ("SAMPLING_RATIO", "much"), ("SAMPLING_RATIO", "2")):
        with pytest.raises(ValueError, match=value):
            tracing_settings({f"SLIPKNOT_TRACING_{name}": value})


def test_off_nothing_is_imported() -> None:
    """Neither OpenTelemetry nor Prometheus's client, in any role."""
    code = (
        "import sys, slipknot_proxy.main, slipknot_controller.main\n"
        "import slipknot_replica.lifecycle, slipknot.serve.handle\n"
        "assert not {'opentelemetry', 'prometheus_client'} & set(sys.modules), sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_deployments_take_over_the_clusters_logging() -> None:
    assert completed_json("", '{"encoding": "JSON"}') == '{"encoding": "JSON"}'
    assert completed_json('{"log_level": "DEBUG"}', "") == '{"log_level": "DEBUG"}'
    general = '{"encoding": "JSON", "logs_dir": "/logs"}'
    assert completed_json('{"log_level": "INFO", "logs_dir": null}', general) == (
        '{"log_level": "INFO", "logs_dir": "/logs"}'
    )
    assert completed_json('{"logs_dir": "/own"}', general) == '{"logs_dir": "/own"}'
