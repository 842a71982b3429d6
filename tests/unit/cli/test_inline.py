"""Leader and worker in one thread: whose turn it is, how it ends, and how a debugger is left."""

from __future__ import annotations

from bdb import BdbQuit
from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from kstate import Context, Input, Job, Operator
from kstate.api.topology import resolve
from kstate.cli.inline import Abandoned, TurnClock, leavable, take_turns
from kstate.cli.main import app
from kstate.clock import Step, Steps
from kstate.errors import ConfigError, OperatorError
from operators.records import Line

WORK, REST = Step("work"), Step("rest", wait=1.0)


class FakeClock:
    """Moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def time_ms(self) -> int:
        return round(self.now * 1000)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Actors:
    """Protocols that tell what they do and when."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.told: list[tuple[float, str]] = []
        self.stopped = False

    def takes(self, name: str, *steps: Step, then: int | Exception = 0) -> Steps[int]:
        for step in steps:
            self.told.append((self.clock.now, name))
            yield step
        if isinstance(then, Exception):
            raise then
        return then

    def endless(self, name: str, step: Step) -> Steps[int]:
        """Until somebody says stop."""
        while not self.stopped:
            self.told.append((self.clock.now, name))
            yield step
        self.told.append((self.clock.now, f"{name} ends"))
        return 0

    def run(self, *protocols: Steps[int]) -> int:
        def stop() -> None:
            self.stopped = True

        return take_turns(protocols, TurnClock(self.clock), stop)


def test_a_protocol_that_rests_leaves_its_turns_to_the_other() -> None:
    """Waits are kept to the moment; whoever is due earlier comes first."""
    actors = Actors()
    half = Step("half", wait=0.5)
    assert actors.run(actors.takes("a", REST, REST), actors.takes("b", half, half, half)) == 0
    assert actors.told == [(0, "a"), (0, "b"), (0.5, "b"), (1, "a"), (1, "b")]


def test_one_that_never_rests_does_not_starve_the_other() -> None:
    """A turn takes time, so whoever waits comes due."""
    actors = Actors()

    def busy() -> Steps[int]:
        for _ in range(100):
            actors.clock.now += 0.1
            yield WORK
        return 0

    actors.run(busy(), actors.takes("patient", REST, REST, REST))
    assert [round(at) for at, _ in actors.told] == [0, 1, 2]


def test_when_one_ends_the_other_is_asked_to_stop_and_awaited() -> None:
    """The first exit code that is not 0 counts, whoever ends first."""
    actors = Actors()
    assert actors.run(actors.endless("leader", REST), actors.takes("worker", WORK, then=7)) == 7
    assert actors.told[-1] == (1.0, "leader ends")


def test_a_failure_is_raised_when_the_others_have_ended() -> None:
    """The worker finishes its epoch although the leader found a mistake in the job."""
    actors = Actors()
    with pytest.raises(ConfigError, match="why"):
        actors.run(actors.takes("leader", then=ConfigError("why")), actors.endless("worker", REST))
    assert actors.told[-1] == (0.0, "worker ends")


def test_time_stands_still_within_a_turn() -> None:
    """Else an idle worker, whose poll takes time, would never end its turn."""
    real = FakeClock()
    clock = TurnClock(real)
    real.sleep(3)
    assert clock.monotonic() == 0
    assert (clock.turn(), clock.monotonic()) == (3, 3)
    clock.sleep(2)
    assert (clock.monotonic(), clock.time_ms()) == (5, 5_000)


def _time_or_quit(line: Line) -> int:
    """Its debugger was left."""
    if line.text == "quit":
        raise BdbQuit
    return line.ts


class Quits(Operator[None], uid="quits"):
    """Its debugger was left, or it fails."""

    lines = Input(Line, topic="lines", event_time=_time_or_quit)

    @lines.each
    def handle(self, line: Line, ctx: Context) -> None:
        raise BdbQuit if line.text == "quit" else OperatorError(line.text)


def test_leaving_the_debugger_is_no_failure_of_a_record() -> None:
    """What the engine would take for an error of the handler passes through it; other errors stay what they are."""
    (spec,) = leavable(resolve(Job("app", [Quits]))).operators
    handler: Callable[..., None] | None = spec.inputs[0].handler
    event_time = spec.inputs[0].event_time
    assert handler is not None
    assert event_time is not None
    assert not issubclass(Abandoned, Exception)
    with pytest.raises(Abandoned):
        handler(Quits(), Line("quit", 1), None)
    with pytest.raises(OperatorError, match="odd"):
        handler(Quits(), Line("odd", 1), None)
    with pytest.raises(Abandoned):
        event_time(Line("quit", 1))
    assert event_time(Line("on", 5)) == 5


def test_inline_is_one_worker() -> None:
    """Told before anything is looked for."""
    result = CliRunner().invoke(app, ["run", "nothing:there", "--inline", "--workers", "2"])
    assert result.exit_code == ConfigError.exit_code
    assert "--inline runs one worker, not 2" in result.stderr
