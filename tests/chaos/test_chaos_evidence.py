"""A fault counts only if the event log proves that it hit what it was meant to hit."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from kstate.clock import Step
from kstate.keyspace import KeyRange
from kstate.messages import TilePhase, TileReport
from kstate.plan import Move, MovePhase, Plan, Registry, Shard
from tests.support.chaos_control import waited
from tests.support.chaos_events import (
    HOLD,
    WANT,
    Blow,
    Mark,
    Marks,
    Phase,
    Role,
    Want,
    doubt,
    seen_by_leader,
    seen_by_source,
    seen_by_target,
)
from tests.support.chaos_faults import SHORT, all_kinds, in_hand
from tests.support.chaos_hooks import Hooks, Seen

SHARD = Shard("accounts", 1)
MOVE = Move(7, SHARD, KeyRange(0, 100), "a.1", "b.1", 7, MovePhase.WARM)
RELEASE = replace(MOVE, phase=MovePhase.RELEASE)

IN_EPOCH = Mark(10.0, "worker-1", "a.1", 1, "held", step="flushed", hand=12, want=3, role="worker")
IN_MOVE = replace(IN_EPOCH, role="target", phase="warm", move=7, incarnation="b.1", source="a.1", target="b.1")
GONE_ON = replace(IN_EPOCH, at=10.5, what="let-go")


def blow(role: Role, victim: str, phase: Phase = Phase.NONE, at: float = 10.1, over: float = 10.2) -> Blow:
    """Inflicted shortly after 10 s."""
    return Blow(3, role, phase, victim, at, over, ("c.1", "b.1"), "leader.1")


def test_a_fault_counts_while_its_victim_is_held_with_work_in_hand() -> None:
    """Also when the victim went on afterwards, and whatever else stands in the log."""
    other = replace(GONE_ON, want=2, at=9.0)
    assert doubt(blow(Role.WORKER, "a.1"), [other, IN_EPOCH]) == ""
    assert doubt(blow(Role.WORKER, "a.1"), [IN_EPOCH, GONE_ON]) == ""


@pytest.mark.parametrize(
    ("marks", "struck", "why"),
    [
        pytest.param([], blow(Role.WORKER, "a.1"), "nobody was held", id="no event"),
        pytest.param([replace(IN_EPOCH, want=4)], blow(Role.WORKER, "a.1"), "nobody was held", id="another hold"),
        pytest.param([IN_EPOCH], blow(Role.WORKER, "a.1", at=9.9), "before anybody", id="too early"),
        pytest.param(
            [IN_EPOCH, replace(GONE_ON, at=10.15)], blow(Role.WORKER, "a.1"), "went on", id="let go meanwhile"
        ),
        pytest.param([replace(IN_EPOCH, hand=0)], blow(Role.WORKER, "a.1"), "no uncommitted", id="nothing in hand"),
        pytest.param([IN_EPOCH], blow(Role.WORKER, "b.1"), "a.1 was held", id="another victim"),
        pytest.param([replace(IN_EPOCH, role="leader")], blow(Role.LEADER, "b.1"), "another one", id="another leader"),
    ],
)
def test_an_uncounted_fault_is_not_counted(marks: list[Mark], struck: Blow, why: str) -> None:
    """Each says why."""
    assert why in doubt(struck, marks)


@pytest.mark.parametrize(
    ("role", "victim"),
    [(Role.SOURCE, "a.1"), (Role.TARGET, "b.1"), (Role.LEADER, "leader.1"), (Role.STANDBY, "c.1")],
)
def test_in_a_phase_of_a_move_everybody_can_be_hit(role: Role, victim: str) -> None:
    """As long as the one without whom the phase cannot end stands still; a stranger to the move does not count."""
    assert doubt(blow(role, victim, Phase.WARM), [IN_MOVE]) == ""
    assert "was not the" in doubt(blow(role, "z.1", Phase.WARM), [IN_MOVE])


def test_a_move_that_is_in_another_phase_does_not_count() -> None:
    """Nor does a hold without any move."""
    assert "'warm'" in doubt(blow(Role.SOURCE, "a.1", Phase.ADOPTING), [IN_MOVE])
    assert "in no move" in doubt(blow(Role.SOURCE, "a.1", Phase.WARM), [IN_EPOCH])


def test_released_and_not_adopted_needs_the_word_of_the_source() -> None:
    """The target that is held cannot know it; the source of this very move must have written it down before."""
    held = replace(IN_MOVE, phase=Phase.ADOPTING)
    struck = blow(Role.TARGET, "b.1", Phase.RELEASED)
    released = replace(IN_EPOCH, what="phase", role="source", phase=Phase.RELEASED, move=7, at=10.05, want=0)
    assert doubt(struck, [held]) == "the source had not released"
    assert doubt(struck, [held, replace(released, at=10.11)]) == "the source had not released"
    assert doubt(struck, [held, replace(released, move=8)]) == "the source had not released"
    assert doubt(struck, [held, replace(released, shard="groups[0]")]) == "the source had not released"
    assert doubt(struck, [held, replace(released, lo=50)]) == "the source had not released"
    assert "was held at 'warm'" in doubt(struck, [IN_MOVE, released])
    assert doubt(struck, [held, released]) == ""


def tile(grant: int, phase: str, lo: int = 0, hi: int = 100) -> TileReport:
    """A piece of the shard."""
    return TileReport(SHARD, KeyRange(lo, hi), grant, TilePhase(phase), 1, {})


def test_phases_as_they_are_seen_from_reports() -> None:
    """The source knows when it has released, the target when it adopts, the leader what both of them say."""
    running, before = tile(7, "running"), tile(3, "running")
    assert seen_by_source(MOVE, [before]) is Phase.WARM
    assert seen_by_source(RELEASE, [before]) is Phase.ORDERED
    assert seen_by_source(RELEASE, [tile(3, "running", 50, 60)]) is Phase.ORDERED
    assert seen_by_source(RELEASE, [tile(3, "running", 100, 200)]) is Phase.RELEASED
    assert seen_by_target(MOVE, [tile(7, "warm")]) is Phase.WARM
    assert seen_by_target(RELEASE, [tile(7, "warm")]) is Phase.ORDERED
    assert seen_by_target(RELEASE, [tile(7, "restoring")]) is Phase.ADOPTING
    assert seen_by_target(RELEASE, [running]) is Phase.ADOPTED
    assert seen_by_leader(RELEASE, [before], [tile(7, "warm")]) is Phase.ORDERED
    assert seen_by_leader(RELEASE, [], [tile(7, "warm")]) is Phase.RELEASED
    assert seen_by_leader(RELEASE, [], [tile(7, "restoring")]) is Phase.ADOPTING
    assert seen_by_leader(RELEASE, [], [running]) is Phase.ADOPTED


@dataclass
class FakeActor:
    """An actor of five steps."""

    name: str = "worker-1"
    incarnation: str = "b.1"
    seen: list[Seen] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    in_hand: int = 0

    def plan(self) -> Plan | None:
        return Plan("app", 9, 1, (), (), (), Registry(), {}, {})

    def moves(self) -> list[Seen]:
        return self.seen

    def hand(self) -> int:
        return self.in_hand

    def leads(self) -> bool:
        return False

    def inside(self) -> object:
        return None

    def news(self) -> object:
        return list(self.seen)

    def steps(self) -> Generator[Step, None, int]:
        for number in range(5):
            self.in_hand = number
            self.seen = [(Role.TARGET, Phase.ADOPTING, RELEASE)] if number > 2 else [(Role.TARGET, Phase.WARM, MOVE)]
            self.taken.append(f"step-{number}")
            yield Step(f"step-{number}")
        return 0


@pytest.mark.parametrize(
    ("want", "step"),
    [
        pytest.param(Want(1, Role.WORKER, hand=2), "step-2", id="work in hand"),
        pytest.param(Want(1, Role.WORKER, step="step-3"), "step-3", id="a step"),
        pytest.param(Want(1, Role.TARGET, Phase.ADOPTING), "step-3", id="a phase"),
        pytest.param(Want(1, Role.TARGET, Phase.RELEASED), "step-3", id="a phase that it cannot know"),
        pytest.param(Want(1, Role.TARGET, Phase.WARM, step="step-1", who="worker-1"), "step-1", id="all of it"),
    ],
)
def test_who_is_wanted_stands_still_until_it_is_let_go(tmp_path: Path, want: Want, step: str) -> None:
    """It writes down where it stands before it does, and takes no step more until the file is gone."""
    actor, hooks, hold = FakeActor(), Hooks(tmp_path), tmp_path / HOLD / "1"
    hold.parent.mkdir()
    hold.touch()
    (tmp_path / WANT).write_text(want.written())
    assert Want.read(want.written()) == want
    thread = threading.Thread(target=lambda: list(hooks.run(actor, actor.steps())))
    thread.start()
    marks = Marks(tmp_path)
    assert waited(lambda: marks.held(1), 5)
    held = marks.held(1)
    assert held is not None
    assert (held.step, held.incarnation, held.plan) == (step, "b.1", 9)
    assert actor.taken[-1] == step
    assert not any(mark.what == "let-go" for mark in marks.all())
    hold.unlink()
    thread.join(5)
    assert actor.taken[-1] == "step-4"
    assert [m.what for m in marks.all() if m.want == 1] == ["held", "let-go"]
    assert [m.phase for m in marks.all() if m.what == "phase"] == ["warm", "adopting"]


@pytest.mark.parametrize(
    "want",
    [
        Want(1, Role.WORKER, hand=9),
        Want(1, Role.WORKER, who="worker-2"),
        Want(1, Role.LEADER),
        Want(1, Role.SOURCE, Phase.WARM),
        Want(1, Role.TARGET, Phase.ADOPTED),
    ],
)
def test_who_is_not_wanted_goes_on(tmp_path: Path, want: Want) -> None:
    """The want stays for somebody else."""
    actor, hooks = FakeActor(), Hooks(tmp_path)
    (tmp_path / WANT).write_text(want.written())
    for step in hooks.run(actor, actor.steps()):
        assert step.name == actor.taken[-1]
    assert Marks(tmp_path).held(1) is None
    assert (tmp_path / WANT).exists()


def test_work_in_hand_is_what_was_handled_after_the_last_commit() -> None:
    """By the lines that a worker writes for its batches and epochs; lines of other incarnations mean nothing."""

    def line(event: str, records: int, incarnation: str = "a.1") -> str:
        return json.dumps({"event": event, "records": records, "incarnation": incarnation})

    handled = [line("handled", 5), line("committed", 5), line("handled", 3), line("handled", 4)]
    assert in_hand("\n".join(handled), "a.1") == 7
    assert in_hand("\n".join([*handled, line("handled", 9, "b.1"), "cut off {"]), "a.1") == 7
    assert in_hand("\n".join([*handled, line("committed", 7)]), "a.1") == 0
    assert in_hand("\n".join([*handled, line("undone", 7)]), "a.1") == 0


def test_the_short_form_names_kinds_that_exist() -> None:
    """And every name is one kind."""
    names = [kind.name for kind in all_kinds()]
    assert len(names) == len(set(names))
    assert set(SHORT) <= set(names)
    assert len(SHORT) >= 15
