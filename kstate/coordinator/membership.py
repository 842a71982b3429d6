"""Who is there: workers by incarnation, from their heartbeats and from supervisors that saw a process end.

    unknown ── heartbeat ──▶ ALIVE ── 4 missed ──▶ SILENT ── decision ──▶ dead, for ever
                             │  ▲                    │
                             │  └───── heartbeat ────┘
                             └─ leaving, or process ended ──▶ ENDED ── decision ──▶ dead, for ever

Suspecting is about time and may be wrong, which costs a restart; who owns what never depends on it (S9, S2).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from kstate.messages import Heartbeat, ProcessExited
from kstate.plan import Member


class Phase(Enum):
    """How an incarnation stands in the eyes of the leader."""

    ALIVE = "alive"
    SILENT = "silent: suspected"
    ENDED = "ended: suspected without waiting"


@dataclass(frozen=True, slots=True)
class Presence:
    """One incarnation as it was heard last; `silence_ms` counts only time in which the leader could read reports."""

    member: Member
    host: str = ""
    silence_ms: int = 0
    ended: str | None = None
    """Why it will not come back: its process ended, or it left in an orderly way."""
    restarts: bool = False
    """Its supervisor starts a successor."""
    abandoned: bool = False
    """Its supervisor says that nobody starts one soon."""
    beat: Heartbeat | None = None
    """What it said last; what it said of its pieces stays true when it ends."""


@dataclass(frozen=True, slots=True)
class Membership:
    """Everybody heard of or expected, by incarnation. Invariant: an entry that has ended stays so."""

    silence_max_ms: int
    present: Mapping[str, Presence] = field(default_factory=dict)

    def phase(self, incarnation: str) -> Phase | None:
        """None for one that was never heard of."""
        presence = self.present.get(incarnation)
        if presence is None:
            return None
        if presence.ended is not None:
            return Phase.ENDED
        return Phase.SILENT if presence.silence_ms >= self.silence_max_ms else Phase.ALIVE

    def alive(self) -> tuple[Member, ...]:
        """Those who heartbeat, the freshest first."""
        living = [p for i, p in self.present.items() if self.phase(i) is Phase.ALIVE]
        return tuple(p.member for p in sorted(living, key=lambda p: (p.silence_ms, p.member.incarnation)))

    def beats(self) -> dict[str, Heartbeat]:
        """The newest heartbeat of each, by incarnation."""
        return {i: p.beat for i, p in self.present.items() if p.beat is not None}

    def awaits_successor(self, incarnation: str) -> bool:
        """Whether a supervisor said that it starts this worker again."""
        return incarnation in self.present and self.present[incarnation].restarts

    def is_abandoned(self, incarnation: str) -> bool:
        """Whether a supervisor said that nobody will come in its place soon."""
        return incarnation in self.present and self.present[incarnation].abandoned

    def suspicion(self, incarnation: str) -> str | None:
        """Why it should be declared dead, None when it should not."""
        presence = self.present.get(incarnation)
        if presence is None or self.phase(incarnation) is Phase.ALIVE:
            return None
        return presence.ended or f"no heartbeat for {presence.silence_ms} ms"


def expect(membership: Membership, members: Iterable[Member]) -> Membership:
    """Members of a plan that this leader has not heard of yet: their silence counts from now on."""
    new = {m.incarnation: Presence(m) for m in members if m.incarnation not in membership.present}
    return replace(membership, present={**membership.present, **new}) if new else membership


def heard(membership: Membership, beat: Heartbeat) -> Membership:
    """A heartbeat came; one of a process that has ended was still on its way and changes nothing."""
    known = membership.present.get(beat.incarnation)
    if known is not None and known.ended is not None:
        return membership
    ended = f"{beat.name} left in an orderly way" if beat.leaving else None
    presence = Presence(Member(beat.name, beat.incarnation, beat.build), beat.host, 0, ended, beat=beat)
    return replace(membership, present={**membership.present, beat.incarnation: presence})


def exited(membership: Membership, report: ProcessExited) -> Membership:
    """A supervisor saw the process end; told again, it may take back that it starts a successor at once."""
    known = membership.present.get(report.incarnation, Presence(Member("", report.incarnation)))
    if known.ended is not None:
        if not known.restarts or report.restarts:
            return membership
        taken_back = replace(known, restarts=False, abandoned=True)
        return replace(membership, present={**membership.present, report.incarnation: taken_back})
    ended = f"its process ended: {_exit_text(report.exit_code)}"
    presence = replace(known, ended=ended, restarts=report.restarts, abandoned=not report.restarts)
    return replace(membership, present={**membership.present, report.incarnation: presence})


def waited(membership: Membership, counted_ms: int) -> Membership:
    """Time went by in which the leader could read reports."""
    present = {i: replace(p, silence_ms=p.silence_ms + counted_ms) for i, p in membership.present.items()}
    return replace(membership, present=present)


def excused(membership: Membership, grace_ms: int) -> Membership:
    """Nobody could be heard for long: silence counts anew, and only after a time of grace."""
    present = {i: replace(p, silence_ms=-grace_ms) for i, p in membership.present.items()}
    return replace(membership, present=present)


def forget(membership: Membership, kept: Iterable[str]) -> Membership:
    """Drop those who are no longer there and are not among `kept`, so that memory is bounded."""
    kept = set(kept)
    present = {i: p for i, p in membership.present.items() if i in kept or membership.phase(i) is Phase.ALIVE}
    return replace(membership, present=present) if len(present) < len(membership.present) else membership


def _exit_text(exit_code: int) -> str:
    return f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
