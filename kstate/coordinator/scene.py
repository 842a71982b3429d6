"""What the next plan is made from, and what it is made of: the two values that all rules of the control plane share.

Each rule is a function `(Ownership, Scene) → Ownership`; `kstate.coordinator.planning` says in which order they apply.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from kstate.config import RecoverySettings
from kstate.coordinator.completion import Achieved
from kstate.coordinator.events import Draft
from kstate.coordinator.evidence import Evidence
from kstate.description import JobDescription
from kstate.keyspace import KeyRange
from kstate.plan import Member, Move, MovePhase, Parked, Plan, Shard, Standby, Tile
from kstate.progress import SlotMap

LISTED_MAX = 3
"""So many things are named in a reason; of more, their number."""


@dataclass(frozen=True, slots=True)
class Roll:
    """Who may get tiles, and whose tiles may be given, at one moment."""

    alive: tuple[Member, ...]
    """Those who heartbeat, members of the plan or not, the freshest first."""
    dead: frozenset[str]
    fenced: frozenset[str]
    """Declared dead, seen, and fenced since: their tiles may be given (S2)."""
    overdue: frozenset[str]
    """Dead whose successor was waited for long enough."""
    names: Mapping[str, str]
    """Incarnation → name, of the dead too."""
    build: str = ""
    """Of the leader's job: only those who run the same join and get tiles."""

    def name(self, incarnation: str | None) -> str:
        """What people call a worker."""
        return "nobody" if incarnation is None else self.names.get(incarnation, incarnation)


@dataclass(frozen=True, slots=True)
class Scene:
    """All that the next plan is made from, at one moment; `plan` is the newest one."""

    plan: Plan
    roll: Roll
    job: JobDescription
    draft: Draft | None = None
    evidence: Evidence = field(default_factory=Evidence)
    achieved: Achieved = field(default_factory=Achieved)
    recovery: RecoverySettings = field(default_factory=RecoverySettings)
    deaths_max: int = 3

    @property
    def grant(self) -> int:
        """The version of the next plan: the grant of all that it gives, the id of the moves that it begins."""
        return self.plan.version + 1

    @property
    def bounded(self) -> bool:
        """A bounded run: nothing is moved for anybody's comfort."""
        return (self.draft or self.plan).bounded


@dataclass(frozen=True, slots=True)
class Ownership:
    """The part of a plan that says who has what, and why it came to be: one short text for each decision."""

    members: tuple[Member, ...]
    tiles: tuple[Tile, ...]
    moves: tuple[Move, ...] = ()
    standbys: tuple[Standby, ...] = ()
    parked: tuple[Parked, ...] = ()
    drained: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """All notes, for people."""
        return "; ".join(self.notes)

    def noted(self, *notes: str) -> Ownership:
        """The same with more notes."""
        return replace(self, notes=(*self.notes, *notes)) if notes else self

    def able(self, roll: Roll) -> list[Member]:
        """Members that may get something: alive as far as is decided, of the leader's build, not drained."""
        kept = (m for m in self.members if m.incarnation not in roll.dead and m.incarnation not in self.drained)
        return [m for m in kept if m.build == roll.build]

    def loads(self, members: Iterable[Member]) -> Counter[str]:
        """How many tiles each of these has; what is on its way counts where it goes to."""
        load = Counter({m.incarnation: 0 for m in members})
        going = {(m.shard, m.key_range) for m in self.moves if m.source != m.target}
        holders = [t.worker for t in self.tiles if (t.shard, t.key_range) not in going]
        holders += [m.target for m in self.moves if m.source != m.target]
        load.update(holder for holder in holders if holder is not None and holder in load)
        return load

    def moving(self, shard: Shard, key_range: KeyRange) -> list[Move]:
        """The moves under way that touch a range."""
        return [m for m in self.moves if m.shard == shard and m.key_range.overlap(key_range)]

    def resting(self, tile: Tile) -> list[KeyRange]:
        """The parts of a tile that are under no move."""
        busy = SlotMap((m.key_range, m.id) for m in self.moving(tile.shard, tile.key_range))
        return busy.gaps(tile.key_range)


def kept_of(plan: Plan) -> Ownership:
    """What a plan says, to be changed."""
    return Ownership(plan.members, plan.tiles, plan.moves, plan.standbys, plan.parked, plan.drained)


def exchanged(now: Ownership, parts: Mapping[Tile, Sequence[tuple[KeyRange, str | None]]], grant: int) -> Ownership:
    """Parts of tiles with new workers, under a new grant; what is left of the tiles stays as it is."""
    tiles: list[Tile] = []
    for tile in now.tiles:
        given = [replace(tile, key_range=r, worker=worker, grant=grant) for r, worker in parts.get(tile, ())]
        left = SlotMap((t.key_range, 1) for t in given).gaps(tile.key_range)
        tiles += given + ([replace(tile, key_range=r) for r in left] if given else [tile])
    return replace(now, tiles=in_order(tiles, now.tiles))


def in_order(tiles: Iterable[Tile], like: Sequence[Tile]) -> tuple[Tile, ...]:
    """Tiles sorted by slots within their shard; the shards in the order in which a plan has them."""
    places = {shard: i for i, shard in enumerate(dict.fromkeys(tile.shard for tile in like))}
    return tuple(sorted(tiles, key=lambda t: (places.get(t.shard, len(places)), t.shard, t.key_range)))


def least(load: Counter[str], among: Iterable[Member]) -> Member:
    """Who has fewest; of equals, the first by name."""
    return min(among, key=lambda m: (load[m.incarnation], by_name(m)))


def by_name(member: Member) -> tuple[int, str, str]:
    """Sort key: worker-2 before worker-10."""
    return len(member.name), member.name, member.incarnation


def listed(things: Iterable[object], noun: str = "tile") -> str:
    """A few things by what they are called, many by their number."""
    texts = [str(thing) for thing in things]
    return counted(len(texts), noun) if len(texts) > LISTED_MAX else ", ".join(texts)


def counted(number: int, noun: str) -> str:
    """So many of something."""
    return f"{number} {noun}{'s' * (number != 1)}"


def is_release(move: Move) -> bool:
    """Whether the source is ordered to release: the range goes to its target and to nobody else (S7)."""
    return move.phase is MovePhase.RELEASE
