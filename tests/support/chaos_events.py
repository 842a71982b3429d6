"""What processes under a chaos run write down, and whether that proves that a fault hit what it was meant to hit.

    <folder>/chaos.jsonl     one line per event, of all processes, appended with one write each: a kill loses none
    <folder>/chaos.want      who is to be held, and where; the first process that is there takes it (renames it)
    <folder>/hold/<id>       while it is there, whoever is held does not go on
    <folder>/chaos.tell      asks everybody to write down where it stands, in <folder>/<pid>.told

Only this decides what counts: a fault is inflicted while somebody is *held* in the named phase of a move, or in the
middle of an epoch. The event that says so was written before, none that says "let go" was: so the phase lasted.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from kstate.keyspace import KeyRange
from kstate.messages import TileReport
from kstate.plan import Move, MovePhase

EVENTS = "chaos.jsonl"
WANT = "chaos.want"
HOLD = "hold"
TELL = "chaos.tell"
IN_HANDLER = "in-handler"
"""The pseudo-step within user code."""


class Phase(StrEnum):
    """How far a move is."""

    NONE = ""
    """No move is meant."""
    WARM = "warm"
    """The target reads; the source works on."""
    ORDERED = "release ordered"
    RELEASED = "released, not adopted"
    ADOPTING = "adopting"
    ADOPTED = "adopted, plan not written"


class Role(StrEnum):
    """Who somebody is in a move, or without one."""

    SOURCE = "source"
    TARGET = "target"
    LEADER = "leader"
    STANDBY = "standby"
    WORKER = "worker"
    """Any that has work in hand."""


@dataclass(frozen=True, slots=True)
class Want:
    """Hold the first that is found in a role and phase (or at a step) with so many uncommitted records in hand."""

    id: int
    role: Role
    phase: Phase = Phase.NONE
    step: str = ""
    hand: int = 0
    who: str = ""
    """The name of a process; empty: any."""
    seconds_max: float = 15.0
    """A hold ends by itself after so long."""

    def written(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def read(text: str) -> Want:
        """The inverse of `written`."""
        fields = json.loads(text)
        return Want(**{**fields, "role": Role(fields["role"]), "phase": Phase(fields["phase"])})


@dataclass(frozen=True, slots=True)
class Mark:
    """A line of the event log."""

    at: float
    """Monotonic seconds, the same clock in all processes of the machine."""
    who: str
    incarnation: str
    pid: int
    what: str
    """"started", "phase" (the process sees a move in a new phase), "held", "let-go"."""
    step: str = ""
    hand: int = 0
    """Records handled and not yet committed."""
    want: int = 0
    role: str = ""
    phase: str = ""
    move: int = 0
    shard: str = ""
    lo: int = 0
    hi: int = 0
    source: str = ""
    """Incarnations."""
    target: str = ""
    plan: int = 0

    @property
    def which(self) -> tuple[int, str, int, int]:
        """Which move: those of one plan have the same id."""
        return self.move, self.shard, self.lo, self.hi


def accepted(want: Want) -> tuple[Phase, ...]:
    """In which phase, as it sees it itself, somebody is held: a target cannot know whether the source has released."""
    if want.phase is Phase.RELEASED and want.role is Role.TARGET:
        return Phase.ORDERED, Phase.ADOPTING
    return (want.phase,)


class Marks:
    """The event log, read while it is written."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / EVENTS
        self._position = 0
        self._marks: list[Mark] = []

    def all(self) -> list[Mark]:
        """Everything so far."""
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._position)
            data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            self._position += len(whole)
            self._marks += [Mark(**json.loads(line)) for line in whole.splitlines()]
        return self._marks

    def held(self, want: int) -> Mark | None:
        """Who took a want, once somebody is held."""
        return next((m for m in reversed(self.all()) if m.what == "held" and m.want == want), None)


@dataclass(frozen=True, slots=True)
class Blow:
    """A fault as it was inflicted: on whom, in which role, from when on; until when whoever is held was not let go."""

    want: int
    role: Role
    phase: Phase
    victim: str
    """An incarnation; of a fault that hits nobody in particular (the broker) the one that is held."""
    at: float
    over: float
    """When it had taken effect: the process was gone or stopped, the connection cut."""
    standbys: tuple[str, ...] = ()
    """Who kept a copy of the range at that time by the plan."""
    leader: str = ""
    """Who led at that time, by control."""


def doubt(blow: Blow, marks: Iterable[Mark]) -> str:
    """Why a fault does not count; empty when the event log proves that it hit what it was meant to hit."""
    marks = list(marks)
    held = next((m for m in marks if m.what == "held" and m.want == blow.want), None)
    if held is None:
        return "nobody was held"
    if held.at > blow.at:
        return "it came before anybody was held"
    if any(m.what == "let-go" and m.want == blow.want and m.at <= blow.over for m in marks):
        return "who was held went on before it had taken effect"
    if blow.phase is Phase.NONE:
        return _doubt_in_epoch(blow, held)
    return _doubt_in_move(blow, held, marks)


def _doubt_in_epoch(blow: Blow, held: Mark) -> str:
    if held.role == Role.LEADER:
        return "" if blow.victim == held.incarnation else "another one than the leader was hit"
    if held.incarnation != blow.victim:
        return f"{blow.victim} was hit, {held.incarnation} was held"
    return "" if held.hand > 0 else "the victim held no uncommitted record"


def _doubt_in_move(blow: Blow, held: Mark, marks: list[Mark]) -> str:
    """The phase in which the move stood while it was held, and the victim's role in this very move."""
    if not held.move:
        return "who was held was in no move"
    seen = {m.phase for m in marks if m.what == "phase" and m.which == held.which and m.at <= blow.at}
    match blow.phase:
        case Phase.RELEASED:
            if held.phase not in accepted(Want(0, Role(held.role), Phase.RELEASED)):
                return f"the move was held at {held.phase!r}"
            released = [m for m in marks if m.what == "phase" and m.role == Role.SOURCE and m.phase == Phase.RELEASED]
            if not any(m.which == held.which and m.at <= blow.at for m in released):
                return "the source had not released"
        case phase if held.phase != phase:
            return f"the move was held at {held.phase!r}, not at {phase!r} (seen {sorted(seen)})"
        case _:
            pass
    return _doubt_role(blow, held)


def _doubt_role(blow: Blow, held: Mark) -> str:
    expected = {
        Role.SOURCE: (held.source,),
        Role.TARGET: (held.target,),
        Role.LEADER: (blow.leader,),
        Role.STANDBY: tuple(s for s in blow.standbys if s not in (held.source, held.target)),
        Role.WORKER: (held.source, held.target),
    }[blow.role]
    return "" if blow.victim in expected else f"{blow.victim} was not the {blow.role} of move {held.move}"


def seen_by_source(move: Move, tiles: Iterable[TileReport]) -> Phase:
    """The phase of a move as its source knows it from what it runs itself."""
    if move.phase is MovePhase.WARM:
        return Phase.WARM
    return Phase.ORDERED if _runs(move, tiles, before=move.grant) else Phase.RELEASED


def seen_by_target(move: Move, tiles: Iterable[TileReport]) -> Phase:
    """The phase of a move as its target knows it; it cannot know whether the source has released."""
    tiles = tuple(tiles)
    if move.phase is MovePhase.WARM:
        return Phase.WARM
    if _runs(move, tiles, since=move.grant):
        return Phase.ADOPTED
    adopting = any(t.phase == "restoring" and t.grant == move.grant and _overlaps(move, t) for t in tiles)
    return Phase.ADOPTING if adopting else Phase.ORDERED


def seen_by_leader(move: Move, source: Iterable[TileReport], target: Iterable[TileReport]) -> Phase:
    """The phase of a move as its leader knows it from the newest heartbeats."""
    if (of_target := seen_by_target(move, target)) is not Phase.ORDERED:
        return of_target
    return seen_by_source(move, source)


def _runs(move: Move, tiles: Iterable[TileReport], *, since: int = 0, before: int = 1 << 62) -> bool:
    return any(t.phase == "running" and since <= t.grant < before and _overlaps(move, t) for t in tiles)


def _overlaps(move: Move, tile: TileReport) -> bool:
    given: KeyRange | None = tile.key_range.overlap(move.key_range)
    return tile.shard == move.shard and given is not None
