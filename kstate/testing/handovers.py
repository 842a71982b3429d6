"""Who runs which slots in a simulated cluster, who has released them, and who may take them over (S2, S6, S7).

An incarnation *owns* slots from the moment it runs them until it has committed a RELEASE for them, or is *out*: it was
declared dead, and fenced since. Whoever starts to run slots that another one owns makes two owners, whether or not both
come to commit something. That is looked for where it happens: in what workers say of themselves, in committed markers,
and in the step from one plan to the next. Nothing here asks the engine's own rules.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple, TypeVar

from kstate.keyspace import KeyRange
from kstate.messages import TileReport
from kstate.plan import Move, MovePhase, Plan, Shard, Tile
from kstate.progress import SlotMap
from kstate.state.markers import Marker, MarkerKind
from kstate.testing.violations import Kind

Report = Callable[[Kind, str], None]
Part = TypeVar("Part", Move, Tile)


class Owner(NamedTuple):
    """Who runs some slots, under which grant."""

    grant: int
    incarnation: str


class Release(NamedTuple):
    """Who released some slots last, and for which move."""

    grant: int
    incarnation: str
    move: int


class Handovers:
    """Follows the ownership of all slots; tells of what no rule allows."""

    def __init__(self, report: Report, dead: Collection[str]) -> None:
        """`dead`: whose death is committed; it grows."""
        self._report = report
        self._dead = dead
        self._running: dict[Shard, SlotMap[Owner]] = defaultdict(SlotMap)
        self._released: dict[Shard, SlotMap[Release]] = defaultdict(SlotMap)
        self._moves: dict[tuple[Shard, int], set[Move]] = defaultdict(set)
        """By shard and grant, of all plans."""
        self._fenced: set[str] = set()
        """Whose id was opened last by somebody else."""
        self._out: set[str] = set()

    # -- who is out

    def opened(self, transactional_id: str, *, by_owner: bool) -> None:
        """An id was opened, by its owner or to fence it."""
        if by_owner:
            self._fenced.discard(transactional_id)
            return
        self._fenced.add(transactional_id)
        if transactional_id in self._dead:
            self._out.add(transactional_id)

    def is_out(self, incarnation: str) -> bool:
        """It can commit nothing more, nor will it find that it may."""
        return incarnation in self._out or (incarnation in self._fenced and incarnation in self._dead)

    # -- what is seen

    def committed(self, name: str, shard: Shard, marker: Marker) -> None:
        """A marker is committed; `name` says which."""
        for piece, other in self._running[shard].slice(marker.key_range):
            if other.incarnation != marker.incarnation and other.grant >= marker.grant:
                self._two(f"{name}: {other.incarnation} runs {piece} under grant {other.grant} by then")
        for piece, release in self._released[shard].slice(marker.key_range):
            if marker.grant <= release.grant:
                self._two(f"{name}: {release.incarnation} has released {piece} by then (move {release.move}, S6)")
        if marker.kind is MarkerKind.RELEASE:
            assert marker.move is not None
            release = Release(marker.grant, marker.incarnation, marker.move)
            self._released[shard].assign(marker.key_range, release)

    def runs(self, incarnation: str, tile: TileReport) -> None:
        """An incarnation says that it runs a piece; what is older than what is known says nothing new."""
        owners = self._running[tile.shard]
        news = [*owners.gaps(tile.key_range), *(p for p, o in owners.slice(tile.key_range) if o.grant < tile.grant)]
        for piece in news:
            self._takes(incarnation, tile, piece)
            owners.assign(piece, Owner(tile.grant, incarnation))

    def runner(self, shard: Shard, slot: int) -> Owner | None:
        """Who runs a slot, as far as is known."""
        return self._running[shard].get(slot)

    def has_released(self, shard: Shard, key_range: KeyRange, move: int) -> bool:
        """Whether all of a range was released for a move."""
        released = self._released[shard].slice(key_range)
        return not released.gaps(key_range) and all(r.move == move for r in released.values())

    def _takes(self, incarnation: str, tile: TileReport, piece: KeyRange) -> None:
        who = f"{incarnation} runs {tile.shard} {piece} under grant {tile.grant}"
        for part, owner in self._running[tile.shard].slice(piece):
            if owner.incarnation != incarnation and not self._gave_up(tile.shard, part, owner):
                self._two(f"{who}: {owner.incarnation} owns it under grant {owner.grant}")
        for move, part in _parts(self._moves[tile.shard, tile.grant], piece):
            done = self.is_out(move.source) or self.has_released(tile.shard, part, move.id)
            if move.target == incarnation and not done:
                self._two(f"{who}, though {move.source} has not released it for {move} (S6)")

    def _gave_up(self, shard: Shard, piece: KeyRange, owner: Owner) -> bool:
        released = self._released[shard].slice(piece)
        return self.is_out(owner.incarnation) or (
            not released.gaps(piece) and all(release.grant >= owner.grant for release in released.values())
        )

    # -- plans

    def planned(self, before: Plan | None, plan: Plan) -> None:
        """A plan was committed; `before` is the one before it."""
        for move in plan.moves:
            self._moves[move.shard, move.grant].add(move)
        if before is None or (before.tiles == plan.tiles and before.moves == plan.moves):
            return
        for fault in self._plan_faults(before, plan):
            self._report(Kind.PLAN, f"plan {plan.version}: {fault}")

    def _plan_faults(self, before: Plan, plan: Plan) -> Iterator[str]:
        tiles, moves = _by_shard(before.tiles), _by_shard(before.moves)
        after = _by_shard(plan.moves)
        for tile in plan.tiles:
            for old, piece in _parts(tiles[tile.shard], tile.key_range):
                under_release = any(_is_releasing(move, piece) for move in moves[tile.shard])
                if not under_release and old.worker not in {None, tile.worker} and not self.is_out(old.worker or ""):
                    yield f"{tile.shard} {piece} goes from {old.worker} to {tile.worker}, who is not out (S2)"
        for move in plan.moves:
            known = SlotMap((piece, old.id) for old, piece in _parts(moves[move.shard], move.key_range))
            if move.id != plan.version and known != SlotMap([(move.key_range, move.id)]):
                yield f"{move} has an id that another move had (S6)"
        for move in before.moves:
            if move.phase is MovePhase.RELEASE:
                yield from self._kept_faults(move, _parts(after[move.shard], move.key_range))
                yield from self._ended_faults(move, after[move.shard], plan)

    def _kept_faults(self, move: Move, after: Iterable[tuple[Move, KeyRange]]) -> Iterator[str]:
        """What is wrong with how a move goes on once its release was ordered."""
        for later, piece in after:
            if later.id == move.id and later.phase is not MovePhase.RELEASE:
                yield f"the release of {move}, {piece}, is taken back (S7)"
            if later.id == move.id and later.target != move.target and not self.is_out(move.target):
                yield f"{move}, {piece}, goes to {later.target}, though {move.target} is not out (S7)"

    def _ended_faults(self, move: Move, after: Iterable[Move], plan: Plan) -> Iterator[str]:
        """A range under release stays so until its target has it, unless source and target are out; so does its grant,
        or its source would believe that it owns it anew.
        """
        kept = SlotMap((piece, move.id) for later, piece in _parts(after, move.key_range) if later.id == move.id)
        done = self.is_out(move.source) or self.has_released(move.shard, move.key_range, move.id)
        for tile, piece in _parts([tile for tile in plan.tiles if tile.shard == move.shard], move.key_range):
            if tile.worker == move.source and tile.grant > move.id and kept.slice(piece):
                yield f"{move}, {piece}, has the new grant {tile.grant} (S6)"
            for gap in kept.gaps(piece):
                if (tile.worker != move.target or not done) and not self._are_out(move):
                    how = "released" if done else "not released"
                    yield f"{move}, {gap}, {how} by {move.source}, is {tile.worker}'s and no longer under way (S7)"

    def _are_out(self, move: Move) -> bool:
        return self.is_out(move.source) and self.is_out(move.target)

    def _two(self, text: str) -> None:
        self._report(Kind.TWO_OWNERS, text)


def _is_releasing(move: Move, piece: KeyRange) -> bool:
    return move.phase is MovePhase.RELEASE and move.key_range.overlap(piece) is not None


def _by_shard(items: Iterable[Part]) -> dict[Shard, list[Part]]:
    found: dict[Shard, list[Part]] = defaultdict(list)
    for item in items:
        found[item.shard].append(item)
    return found


def _parts(items: Iterable[Part], key_range: KeyRange) -> Iterator[tuple[Part, KeyRange]]:
    """The items that overlap a range, each with the part that it has of it."""
    for item in items:
        if (part := item.key_range.overlap(key_range)) is not None:
            yield item, part
