"""What `kstate run` does about its children, in virtual time."""

from dataclasses import dataclass, field
from itertools import count, pairwise

import pytest

from kstate.cli.supervisor import RESTART_CAP_S, Supervisor
from kstate.testing.virtual_time import VirtualClock


@dataclass
class FakeProcess:
    """A child that ends when the test says so; `obedient`: it ends when it is asked to."""

    pid: int
    obedient: bool = True
    code: int | None = None
    told: list[str] = field(default_factory=list)

    def poll(self) -> int | None:
        return self.code

    def terminate(self) -> None:
        self.told.append("terminate")
        if self.obedient and self.code is None:
            self.code = 0

    def kill(self) -> None:
        self.told.append("kill")
        if self.code is None:
            self.code = -9


class Machine:
    """Surroundings that remember everything."""

    def __init__(self, *workers: str) -> None:
        self.clock = VirtualClock()
        self.children: dict[str, FakeProcess] = {}
        self.incarnations: list[str] = []
        self.starts: list[tuple[float, str]] = []
        self.exits: list[tuple[str, int, bool]] = []
        self.obedient = True
        self._numbers = count(1)
        self.supervisor = Supervisor("coordinator", list(workers), self, self.clock)
        self._steps = self.supervisor.run()
        self.result: int | None = None

    def spawn(self, name: str) -> tuple[str, FakeProcess]:
        number = next(self._numbers)
        self.children[name] = FakeProcess(number, self.obedient)
        self.starts.append((self.clock.now, name))
        self.incarnations.append(f"{name}.{number}")
        return self.incarnations[-1], self.children[name]

    def exited(self, incarnation: str, exit_code: int, *, restarts: bool) -> None:
        self.exits.append((incarnation, exit_code, restarts))

    def say(self, event: str, **fields: object) -> None:
        pass

    def run(self, seconds: float = 1.0) -> None:
        """Let time pass."""
        end = self.clock.now + seconds
        while self.clock.now < end and self.result is None:
            try:
                self.clock.sleep(next(self._steps).wait)
            except StopIteration as over:
                self.result = over.value

    def die(self, name: str, code: int) -> None:
        self.children[name].code = code


def test_a_child_that_crashed_is_started_again_and_its_exit_is_told() -> None:
    """SIGKILL: a new incarnation after a short pause; the leader hears of the exit, and of the successor."""
    machine = Machine("worker-1", "worker-2")
    machine.run()
    machine.die("worker-2", -9)
    machine.run(0.3)
    assert machine.exits == [("worker-2.3", -9, True)]
    assert machine.incarnations == ["coordinator.1", "worker-1.2", "worker-2.3", "worker-2.4"]


def test_pauses_double_up_to_a_cap_and_start_anew_after_a_stable_run() -> None:
    """A crash loop does not eat the machine; a child that ran for long is started at once again."""
    machine = Machine("worker-1")
    pauses = []
    for _ in range(12):
        machine.run(0.1)
        machine.die("worker-1", 1)
        died, crashed = machine.clock.now, machine.children["worker-1"]
        while machine.children["worker-1"] is crashed:
            machine.run(0.02)
        pauses.append(machine.clock.now - died)
    assert pauses[0] < 0.2
    assert all(later >= earlier - 0.05 for earlier, later in pairwise(pauses))
    assert RESTART_CAP_S - 0.1 < pauses[-1] < RESTART_CAP_S + 0.1
    assert machine.exits[-1][2] is False, "nobody should wait for a start that is far away"
    machine.run(31)
    machine.die("worker-1", 1)
    machine.run(0.2)
    assert machine.children["worker-1"].code is None
    assert machine.exits[-1][2] is True


def test_tiles_are_not_kept_waiting_for_a_worker_that_dies_again_and_again() -> None:
    """Its later incarnations die before they own anything, so that the tiles are still those of the first one: with the
    first long pause the leader hears that nobody need wait for any of them. A stable run begins anew.
    """
    machine = Machine("worker-1")
    machine.run(0.1)
    while machine.exits[-1:] == [] or machine.exits[-1][2]:
        machine.die("worker-1", 1)
        crashed = machine.children["worker-1"]
        while machine.children["worker-1"] is crashed:
            machine.run(0.02)
    told = {
        incarnation: [exit_[2] for exit_ in machine.exits if exit_[0] == incarnation]
        for incarnation in machine.incarnations[1:-1]
    }
    assert list(told.values()) == [[True, False]] * 4 + [[False]]
    assert machine.clock.now < 5
    machine.run(31)
    machine.die("worker-1", 1)
    machine.run(0.2)
    assert machine.exits[-1] == (machine.incarnations[-2], 1, True)
    assert len(machine.exits) == 10


@pytest.mark.parametrize("code", [2, 3, 7, 8])
@pytest.mark.parametrize("name", ["worker-2", "coordinator"])
def test_a_final_exit_code_ends_the_whole_job(name: str, code: int) -> None:
    """The others are asked to end, workers before the coordinator, and the job's exit code is that one."""
    machine = Machine("worker-1", "worker-2")
    machine.run()
    machine.die(name, code)
    machine.run(3)
    assert machine.result == code
    assert all(child.code is not None for child in machine.children.values())
    assert len(machine.starts) == 3, "nothing was started again"
    others = [each for each in ("worker-1", "worker-2", "coordinator") if each != name]
    assert all("terminate" in machine.children[each].told for each in others)


@pytest.mark.parametrize("code", [1, 4, 5, 6, -9, -11])
def test_any_other_exit_code_is_a_crash(code: int) -> None:
    """Fenced, retryable, corrupt, bugs, signals: started again."""
    machine = Machine("worker-1")
    machine.run()
    machine.die("worker-1", code)
    machine.run(0.5)
    assert machine.children["worker-1"].code is None
    assert machine.result is None


def test_the_end_of_the_coordinator_is_the_end_of_the_job() -> None:
    """Exit code 0: a bounded run is complete; a worker that still runs is asked to end."""
    machine = Machine("worker-1", "worker-2")
    machine.run()
    machine.die("worker-1", 0)
    machine.run()
    assert machine.result is None
    machine.die("coordinator", 0)
    machine.run()
    assert machine.result == 0


def test_workers_that_all_left_end_the_job() -> None:
    """They read that it is complete: the coordinator is not needed to say so, not even one that crashed meanwhile."""
    machine = Machine("worker-1", "worker-2")
    machine.run()
    machine.die("coordinator", -9)
    machine.die("worker-1", 0)
    machine.die("worker-2", 0)
    machine.run()
    assert machine.result == 0


def test_a_stop_ends_workers_before_the_coordinator() -> None:
    """The leader hears that the workers left, then ends; exit code 0."""
    machine = Machine("worker-1")
    machine.run()
    machine.supervisor.stop()
    machine.run()
    assert machine.result == 0
    assert [incarnation for incarnation, _, _ in machine.exits] == ["worker-1.2", "coordinator.1"]
    assert not any(restarts for _, _, restarts in machine.exits)


def test_workers_that_do_not_end_in_time_are_killed() -> None:
    """Five seconds for the epoch, then force."""
    machine = Machine("worker-1")
    machine.obedient = False
    machine.run()
    machine.supervisor.stop()
    machine.run(4.8)
    assert machine.children["worker-1"].told == ["terminate"]
    machine.run(8)
    assert machine.children["worker-1"].told[:2] == ["terminate", "kill"]
    assert machine.result == 0


def test_a_second_stop_kills_at_once() -> None:
    """Whoever presses Ctrl-C twice means it."""
    machine = Machine("worker-1")
    machine.obedient = False
    machine.run()
    machine.supervisor.stop()
    machine.run(0.5)
    machine.supervisor.stop()
    machine.run(0.5)
    assert machine.result == 0
    assert all(child.code == -9 for child in machine.children.values())


def test_whatever_breaks_the_supervisor_no_child_is_left() -> None:
    """An exception on the way out still kills every child."""
    machine = Machine("worker-1")
    machine.run()
    machine._steps.close()
    assert all(child.code == -9 for child in machine.children.values())
