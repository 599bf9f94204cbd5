from pathlib import Path

from benchmarks.applications import journal


def test_events_of_others_are_read_as_they_come(tmp_path: Path) -> None:
    """The first of a kind counts; half a line waits for its end."""
    path = tmp_path / "journal"
    path.write_text("began 0 before 1.0\n")
    its = journal.Journal(path)
    assert its.times_s("began", 0) == {}
    with path.open("a") as file:
        file.write("began 0 r1 2.5\nbegan 1 r1 2.6\nbegan 0 r1 9.0\ncancelled 0 r")
        file.flush()
        assert its.times_s("began", 0) == {"r1": 2.5}
        assert its.times_s("cancelled", 0) == {}
        file.write("1 3.0\n")
        file.flush()
    assert its.times_s("cancelled", 0) == {"r1": 3.0}
