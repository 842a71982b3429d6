"""Who is there, who is suspected, and why."""

import pytest

from kstate.coordinator.membership import Membership, Phase, exited, expect, forget, heard, waited
from kstate.messages import Heartbeat, ProcessExited
from kstate.plan import Member

NOBODY = Membership(silence_max_ms=1_600)


def beat(incarnation: str, *, name: str = "worker-1", leaving: bool = False) -> Heartbeat:
    """A heartbeat that reports no tiles."""
    return Heartbeat(incarnation, name, "host", 1, 1, 0, (), leaving=leaving)


@pytest.mark.parametrize(
    ("silence_ms", "phase"), [(0, Phase.ALIVE), (1_599, Phase.ALIVE), (1_600, Phase.SILENT), (9_999, Phase.SILENT)]
)
def test_four_missed_heartbeats_make_a_suspect(silence_ms: int, phase: Phase) -> None:
    """A worker is suspected once its counted silence reaches the limit, not before."""
    assert waited(heard(NOBODY, beat("a")), silence_ms).phase("a") is phase


def test_a_heartbeat_clears_the_suspicion() -> None:
    """A silent worker that is heard again is alive, with no silence left over."""
    silent = waited(heard(NOBODY, beat("a")), 5_000)
    back = waited(heard(silent, beat("a")), 1_500)
    assert back.phase("a") is Phase.ALIVE
    assert back.suspicion("a") is None


def test_an_ended_process_is_suspected_at_once_and_for_good() -> None:
    """The exit counts without waiting, and heartbeats still on their way change nothing."""
    ended = exited(heard(NOBODY, beat("a")), ProcessExited("a", -9))
    late = heard(ended, beat("a"))
    assert late.phase("a") is Phase.ENDED
    assert late.suspicion("a") == "its process ended: signal 9"
    assert exited(late, ProcessExited("a", 0)).suspicion("a") == "its process ended: signal 9"


def test_a_worker_that_leaves_needs_no_waiting() -> None:
    """A leaving heartbeat ends the incarnation; another name's goes on."""
    left = heard(heard(NOBODY, beat("a", leaving=True)), beat("b", name="worker-2"))
    assert left.suspicion("a") == "worker-1 left in an orderly way"
    assert left.alive() == (Member("worker-2", "b"),)


def test_members_of_a_plan_are_expected_before_they_are_heard() -> None:
    """A new leader gives the members it never heard the full time from now on, and no more."""
    expected = expect(NOBODY, [Member("worker-1", "a")])
    assert waited(expected, 1_500).phase("a") is Phase.ALIVE
    assert waited(expected, 1_600).suspicion("a") == "no heartbeat for 1600 ms"
    again = expect(waited(expected, 1_000), [Member("worker-1", "a")])
    assert waited(again, 600).phase("a") is Phase.SILENT


def test_the_freshest_are_listed_first() -> None:
    """Of two incarnations the one heard last comes first."""
    both = heard(waited(heard(NOBODY, beat("a")), 400), beat("b"))
    assert [m.incarnation for m in both.alive()] == ["b", "a"]


def test_who_is_gone_and_not_a_member_is_forgotten() -> None:
    """Memory is bounded: silent strangers are dropped, members and the living are kept."""
    all_three = waited(heard(heard(NOBODY, beat("member")), beat("stranger")), 2_000)
    all_three = heard(all_three, beat("living"))
    assert set(forget(all_three, ["member"]).present) == {"member", "living"}


def test_an_unknown_incarnation_has_no_phase() -> None:
    """Nothing is known of one that was never heard of; its exit is remembered."""
    assert NOBODY.phase("a") is None
    assert NOBODY.suspicion("a") is None
    assert exited(NOBODY, ProcessExited("a", 1)).phase("a") is Phase.ENDED


def test_a_supervisor_may_take_back_that_it_starts_a_successor_at_once() -> None:
    """Its worker dies again and again before it joins: nobody should wait for it any longer."""
    alive = heard(NOBODY, beat("w-1"))
    waited_for = exited(alive, ProcessExited("w-1", -9, restarts=True))
    assert waited_for.awaits_successor("w-1")
    given_up = exited(waited_for, ProcessExited("w-1", -9, restarts=False))
    assert not given_up.awaits_successor("w-1")
    assert not exited(given_up, ProcessExited("w-1", -9, restarts=True)).awaits_successor("w-1")
