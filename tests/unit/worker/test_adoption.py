"""What is restored first where there is more than can be brought forward at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kstate.clock import Step, Steps
from kstate.errors import RetryableError
from kstate.keyspace import FULL_RANGE
from kstate.plan import Shard
from kstate.progress import SlotMap
from kstate.state.lineage import Lineage
from kstate.testing.virtual_time import VirtualClock
from kstate.worker.adoption import AT_ONCE, Adopted, Adoptions, ShardRange
from kstate.worker.duties import Role
from kstate.worker.lifecycle import RETRY

READ, AWAIT = Step("restore-read"), Step("await-release", wait=0.01)


class FakeFollower:
    """A copy never comes to the end of its log; what is to run is ready after two steps, or when it was released."""

    def __init__(self, _: ShardRange, role: Role) -> None:
        self.awaits = role.awaits is not None
        self.caught_up = self.gentle = False
        self.behind = 9
        self.closed = 0
        self.broken = False

    def tail(self) -> Steps[None]:
        while True:
            if self.broken:
                raise RetryableError("the log did not answer", hint="")
            yield READ

    def adopt(self, _: Callable[[Lineage], bool] | None = None) -> Steps[Lineage]:
        yield READ
        self.caught_up = self.awaits
        while self.awaits:
            yield AWAIT
        yield READ
        return SlotMap()

    def close(self) -> None:
        self.closed += 1


def places(uid: str, count: int) -> list[ShardRange]:
    """The whole of each partition of an operator."""
    return [ShardRange(Shard(uid, partition), FULL_RANGE) for partition in range(count)]


def adopted(adoptions: Adoptions, steps: int = 100) -> set[ShardRange]:
    """What becomes ready within so many steps."""
    done = [step for _ in range(steps) if isinstance(step := adoptions.step(gentle=False), Adopted)]
    return {each.place for each in done}


def made(clock: VirtualClock | None = None) -> tuple[Adoptions, dict[ShardRange, FakeFollower]]:
    """Nothing to do yet; and the followers, as they are made."""
    followers: dict[ShardRange, Any] = {}

    def follower(place: ShardRange, role: Role) -> Any:
        followers[place] = FakeFollower(place, role)
        return followers[place]

    return Adoptions(follower, clock or VirtualClock()), followers


def test_what_is_to_run_does_not_wait_for_copies_that_are_far_behind() -> None:
    """They are put back, all that they have stored stays theirs, and go on once it runs."""
    adoptions, followers = made()
    copies = dict.fromkeys(places("copied", AT_ONCE + 2), Role(0, runs=False))
    adoptions.want(copies)
    assert not adopted(adoptions)
    lost = dict.fromkeys(places("lost", AT_ONCE + 2), Role(7, runs=True))
    adoptions.want({**copies, **lost})
    assert adopted(adoptions) == lost.keys()
    assert set(adoptions.places()) == copies.keys()
    assert sum(followers[place].closed for place in copies) == AT_ONCE
    adoptions.step(gentle=False)
    assert len(adoptions._running) == AT_ONCE


def test_what_waits_for_a_release_holds_up_nobody() -> None:
    """It has read all there is; a source may take the length of its epoch."""
    adoptions, _ = made()
    coming = dict.fromkeys(places("moved", AT_ONCE), Role(7, runs=True, awaits=7))
    adoptions.want(coming)
    adopted(adoptions)
    lost = dict.fromkeys(places("lost", 1), Role(8, runs=True))
    adoptions.want({**coming, **lost})
    assert adopted(adoptions) == lost.keys()


def test_a_copy_whose_log_does_not_answer_is_tried_again_later_and_holds_up_nobody() -> None:
    """Meanwhile the others go on, and what is left says nothing that could be waited for."""
    clock = VirtualClock()
    adoptions, followers = made(clock)
    bad, good = places("copied", 2)
    adoptions.want(dict.fromkeys([bad, good], Role(0, runs=False)))
    adoptions.step(gentle=True)
    followers[bad].broken = True
    with pytest.raises(RetryableError):
        [adoptions.step(gentle=True) for _ in range(4)]
    assert all(adoptions.step(gentle=True) == READ for _ in range(9))
    adoptions.want({bad: Role(0, runs=False)})
    assert adoptions.step(gentle=True) is None
    assert not adoptions.busy
    followers[bad].broken = False
    clock.sleep(RETRY.wait)
    assert adoptions.step(gentle=True) == READ
