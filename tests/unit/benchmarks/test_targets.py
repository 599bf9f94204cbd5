from benchmarks.report.statistics import summary
from benchmarks.report.targets import Target, judge

FIGURES = {"a/b/rate": {"slipknot": summary([90.0, 100.0, 110.0]), "ray": summary([4.0, 5.0, 6.0])}}


def test_a_ratio_is_that_of_the_medians() -> None:
    """It is met at the bound."""
    verdict = judge(Target("a/b/rate", at_least=20, relative_to="ray"), FIGURES)
    assert (verdict.value, verdict.is_met) == (20, True)


def test_a_ratio_below_its_bound_is_not_met() -> None:
    """However near."""
    assert judge(Target("a/b/rate", at_least=20.1, relative_to="ray"), FIGURES).is_met is False


def test_an_absolute_bound_needs_no_other_system() -> None:
    """It judges the median."""
    assert judge(Target("a/b/rate", at_most=100), FIGURES).is_met is True
    assert judge(Target("a/b/rate", at_most=99), FIGURES).is_met is False


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    """On either side of the ratio."""
    for target in (Target("a/b/p50", at_most=1), Target("a/b/rate", at_least=1, relative_to="haproxy")):
        verdict = judge(target, FIGURES)
        assert (verdict.value, verdict.is_met) == (None, None)


def test_nothing_is_divided_by_zero() -> None:
    """There is no ratio then."""
    figures = {"a/b/rate": {"slipknot": summary([1.0]), "ray": summary([0.0])}}
    assert judge(Target("a/b/rate", at_least=1, relative_to="ray"), figures).value is None
