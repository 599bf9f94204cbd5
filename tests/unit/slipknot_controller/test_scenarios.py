"""Runs tests/scenarios/*.txt: desired state and events in, actions out.

A line is a command; "#" begins a comment. Times are seconds, replicas are named r1, r2, … in the order of
their start.

    deploy VERSION [replicas=N] [option=value …]   scale N   delete
    at TIME                                        let time pass until then
    running|health-checked|joined|failed|lost|stopped|exited|healthy|ill|reconfigured|misconfigured REPLICA …
    expect EFFECT; EFFECT …                        what was done since the last expect, in any order;
                                                   "nothing": nothing was
    routable REPLICA … | none                      who is in the snapshot
    room some | none | after-leaving | N           whether there is a place for another replica, or N in all
    status STATUS [TRIGGER]                        of the deployment
    message TEXT                                   is part of the deployment's message
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.controller_simulation import Simulation

SCENARIOS = sorted((Path(__file__).parents[2] / "scenarios").glob("*.txt"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    """The controller does what the scenario file says."""
    simulation = Simulation()
    for number, line in enumerate(path.read_text().splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            _COMMANDS[words[0]](simulation, words[1:])
        except AssertionError as error:
            raise AssertionError(f"{path.name}:{number}: {line}\n{error}") from error


def test_there_are_scenarios() -> None:
    """The folder is where this test looks for it."""
    assert len(SCENARIOS) >= 10


def _deploy(simulation: Simulation, words: list[str]) -> None:
    options = {name: json.loads(value) for name, _, value in (word.partition("=") for word in words[1:])}
    if "user_config" in options:
        options["user_config_json"] = json.dumps(options.pop("user_config"))
    simulation.deploy(words[0], **options)


def _expect(simulation: Simulation, words: list[str]) -> None:
    text = " ".join(words)
    wanted = [] if text == "nothing" else [effect.strip() for effect in text.split(";")]
    found = simulation.take_effects()
    assert sorted(found) == sorted(wanted), f"found: {'; '.join(found) or 'nothing'}"


def _routable(simulation: Simulation, words: list[str]) -> None:
    assert sorted(simulation.routable()) == sorted(words if words != ["none"] else []), simulation.routable()


def _status(simulation: Simulation, words: list[str]) -> None:
    observed = simulation.observed
    found = [observed.status.value, observed.trigger][: len(words)]
    assert found == words, f"found: {' '.join(found)}: {observed.message}"


def _message(simulation: Simulation, words: list[str]) -> None:
    assert " ".join(words) in simulation.observed.message, simulation.observed.message


def _each(event: Callable[[Simulation, str], None]) -> Callable[[Simulation, list[str]], None]:
    def run(simulation: Simulation, names: list[str]) -> None:
        for name in names:
            event(simulation, name)

    return run


_COMMANDS: dict[str, Callable[[Simulation, list[str]], None]] = {
    "deploy": _deploy,
    "scale": lambda simulation, words: simulation.scale(int(words[0])),
    "delete": lambda simulation, words: simulation.delete(),
    "room": lambda simulation, words: simulation.room(words[0]),
    "at": lambda simulation, words: simulation.advance(float(words[0])),
    "expect": _expect,
    "routable": _routable,
    "status": _status,
    "message": _message,
    "joined": _each(lambda simulation, name: simulation.joined(name)),
    "running": _each(lambda simulation, name: simulation.running(name)),
    "health-checked": _each(lambda simulation, name: simulation.running(name, has_health_check=True)),
    "failed": _each(lambda simulation, name: simulation.failed(name)),
    "lost": _each(lambda simulation, name: simulation.lost(name)),
    "stopped": _each(lambda simulation, name: simulation.stopped(name)),
    "exited": _each(lambda simulation, name: simulation.exited(name)),
    "healthy": _each(lambda simulation, name: simulation.checked(name, is_healthy=True)),
    "ill": _each(lambda simulation, name: simulation.checked(name, is_healthy=False)),
    "reconfigured": _each(lambda simulation, name: simulation.reconfigured(name)),
    "misconfigured": _each(lambda simulation, name: simulation.reconfigured(name, "Traceback: bad config")),
}
