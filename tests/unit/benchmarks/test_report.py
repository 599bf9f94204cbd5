import json

from benchmarks.figures import Figure, Gap, Observation
from benchmarks.report.report import Report
from benchmarks.report.table import number

SEEN = [
    Observation(Figure("noop", "plain c16", "rate", rate, "1/s"), system, round_)
    for round_, rates in enumerate(((900.0, 1000.0), (1100.0, 1000.0)), 1)
    for system, rate in zip(("slipknot", "haproxy"), rates, strict=True)
]
REPORT = Report(
    {"machine": "2 cores"},
    ["slipknot", "haproxy", "ray"],
    SEEN,
    [Gap("ray", "all", None, "no .venv-peers; make | break")],
)


def test_markdown_has_a_column_a_system_that_was_measured() -> None:
    """The median, and the spread where there is one."""
    lines = REPORT.as_markdown().splitlines()
    assert "|  | slipknot | haproxy |" in lines
    assert "| plain c16: rate [1/s] | 1,000 (900 to 1,100) | 1,000 |" in lines


def test_markdown_judges_the_targets_that_were_measured() -> None:
    """Others only count."""
    lines = REPORT.as_markdown().splitlines()
    assert "| noop/plain c16/rate | haproxy | ≥ 0.8 times | 1 | yes |" in lines
    assert not any("noop/plain c64" in line for line in lines)


def test_markdown_says_what_is_missing_and_why() -> None:
    """A bar in the reason does not break the table."""
    assert "| ray | all |  | no .venv-peers; make \\| break |" in REPORT.as_markdown()


def test_json_keeps_every_value() -> None:
    """By figure and system."""
    content = json.loads(REPORT.as_json())
    first = content["figures"][0]
    assert (first["figure"], first["system"], first["values"]) == (
        "noop/plain c16/rate",
        "slipknot",
        [900.0, 1100.0],
    )
    assert content["gaps"][0]["reason"] == "no .venv-peers; make | break"
    assert any(its["key"] == "noop/plain c16/rate" and its["is_met"] for its in content["targets"])


def test_errors_are_shown_only_where_there_were_some() -> None:
    """A row of zeros says nothing."""
    none = Observation(Figure("noop", "plain c1", "errors", 0, ""), "slipknot", 1)
    some = Observation(Figure("noop", "plain c2", "errors", 3, ""), "slipknot", 1)
    text = Report({}, ["slipknot"], [none, some], []).as_markdown()
    assert "plain c1: errors" not in text
    assert "| plain c2: errors | 3 |" in text


def test_numbers_have_three_digits() -> None:
    """Or as many as stand before the point."""
    assert [number(n) for n in (0.0, 0.01234, 12.34, 123.4, 12345.6)] == [
        "0",
        "0.0123",
        "12.3",
        "123",
        "12,346",
    ]
