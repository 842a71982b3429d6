"""Whatever is split, moved, merged and recovered, and in whatever order: no slot, value, deadline or sum is lost."""

from __future__ import annotations

from copy import deepcopy
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kstate.keyspace import KeyRange
from kstate.state.partition import cut_range
from kstate.testing.memory_store import MemoryStore
from tests.support.moving_shard import ALL, PLAIN, MovingShard
from tests.support.restore_bench import finish

slots = st.integers(ALL.lo, ALL.hi - 1)
ranges = st.lists(st.integers(ALL.lo, ALL.hi), min_size=2, max_size=2, unique=True).map(lambda e: KeyRange(*sorted(e)))
CALL = st.tuples(
    st.sampled_from(["add", "add", "put", "put", "commit", "commit", "roll back", "cut", "join"]),
    slots,
    st.integers(0, 99),
)
cuts = st.lists(st.integers(1, ALL.hi - 1), max_size=3, unique=True).map(sorted)
seeds = st.integers(0, 1 << 16)


class Histories(RuleBasedStateMachine):
    """Any order of what owners, plans and crashes do to a shard."""

    def __init__(self) -> None:
        super().__init__()
        self.shard = MovingShard()

    # -- owners at work

    @rule(calls=st.lists(CALL, min_size=1, max_size=6))
    def work(self, calls: list[tuple[str, int, int]]) -> None:
        """Handlers are called, epochs commit or are undone, pieces are cut and join again."""
        for name, slot, number in calls:
            owner = self.shard.owner(slot)
            match name:
                case "add":
                    self.shard.add(slot, number % 2, number)
                case "put":
                    state = (1, 2, PLAIN)[number % 3]
                    few = slot - slot % 24  # so that values are changed and deleted
                    self.shard.put(few, state, None if state == PLAIN else number // 2)
                case "commit":
                    self.shard.commit(owner)
                case "roll back":
                    owner.reload(owner.tile)
                case "cut":
                    owner.cut(slot)
                case "join" if (at := owner.piece(slot)) + 1 < len(owner.pieces):
                    owner.pieces[at : at + 2] = [owner.pieces[at].join(owner.pieces[at + 1])]

    # -- plans

    @rule(part=ranges, where=st.sampled_from(["fresh", "standby", "grave", "process"]), number=st.integers(0, 9))
    def move(self, part: KeyRange, where: str, number: int) -> None:
        shard = self.shard
        owner = shard.owner(part.lo)
        part = part.overlap(owner.tile) or part
        store = MemoryStore()
        if where == "grave" and shard.graves:
            store = shard.graves.pop(number % len(shard.graves))
        others = [other.store for other in shard.owners if other.store is not owner.store]
        if where == "process" and others:
            store = others[number % len(others)]
        follower = shard.follower(part, store)
        fitting = [pair for pair in shard.standbys if _covers(owner.tile, pair[0].target.key_range)]
        if where == "standby" and fitting:
            shard.standbys.remove(pair := fitting[number % len(fitting)])
            (follower, store), part = pair, pair[0].target.key_range
        shard.move(owner, part, follower, store)

    @rule(slot=slots)
    def merge(self, slot: int) -> None:
        """The next tile moves to the owner of this one, then both are one tile."""
        shard = self.shard
        lower = shard.owner(slot)
        at = shard.owners.index(lower) + 1
        if at == len(shard.owners):
            return
        upper = shard.owners[at]
        if upper.store is not lower.store:
            shard.move(upper, upper.tile, shard.follower(upper.tile, lower.store), lower.store)
        shard.join(*shard.owners[at - 1 : at + 1])

    @rule(
        slot=slots,
        cuts=cuts,
        heirs=st.lists(st.sampled_from(["own", "fresh", "grave"]), min_size=4, max_size=4),
        seed=seeds,
    )
    def die(self, slot: int, cuts: list[int], heirs: list[str], seed: int) -> None:
        """A process is killed; its tiles are cut, and given to its successor or to others."""
        shard, rng = self.shard, Random(seed)
        own = shard.owner(slot).store
        tiles = shard.kill(own, rng)
        shard.graves.remove(own)
        reused = False
        for tile in rng.sample(tiles, len(tiles)):
            parts = cut_range(tile, [at for at in cuts if tile.lo < at < tile.hi])
            for part, heir in rng.sample([*zip(parts, heirs, strict=False)], len(parts)):
                store = MemoryStore()
                if heir == "own":
                    store, reused = own, True
                elif heir == "grave" and shard.graves:
                    store = shard.graves.pop(rng.randrange(len(shard.graves)))
                shard.give(part, store)
        if not reused:
            shard.graves.append(own)

    # -- copies

    @rule(key_range=ranges, seed=seeds)
    def stand_by(self, key_range: KeyRange, seed: int) -> None:
        shard = self.shard
        if len(shard.standbys) < 3:
            store = shard.graves.pop(seed % len(shard.graves)) if shard.graves and seed % 2 else MemoryStore()
            shard.standbys.append((shard.follower(key_range, store), store))

    @rule(number=st.integers(0, 9), count=st.integers(1, 30))
    def tail(self, number: int, count: int) -> None:
        if self.shard.standbys:
            follower, _ = self.shard.standbys[number % len(self.shard.standbys)]
            tail = follower.tail()
            for _ in range(count):
                next(tail)
            tail.close()

    @rule(number=st.integers(0, 9), part=ranges, crash=st.booleans())
    def restore_a_part(self, number: int, part: KeyRange, crash: bool) -> None:
        """Of any range, into a copy of any store that there is: also where its own cells reach over the range."""
        shard = self.shard
        stores = [
            MemoryStore(),
            *shard.graves,
            *(store for _, store in shard.standbys),
            *(o.store for o in shard.owners),
        ]
        store = deepcopy(stores[number % len(stores)])
        if crash:
            store.crash(Random(number))
        finish(shard.follower(part, store).adopt())
        shard.check_copy(store, part)

    # -- what must hold

    @invariant()
    def holds(self) -> None:
        self.shard.check_tiling()
        self.shard.check_owners()

    def teardown(self) -> None:
        self.shard.check_total()
        for follower, store in self.shard.standbys:
            finish(follower.adopt())
            self.shard.check_copy(store, follower.target.key_range)


def _covers(outer: KeyRange, inner: KeyRange) -> bool:
    return outer.lo <= inner.lo and inner.hi <= outer.hi


TestHistories = Histories.TestCase
TestHistories.settings = settings(deadline=None, max_examples=60, stateful_step_count=25)
