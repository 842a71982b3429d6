"""Compares what the sample job has done with what it must do; see kstate.testing.oracle."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from kstate.api.specs import PartialSpec
from kstate.clock import run_steps
from kstate.errors import KstateError
from kstate.keyspace import FULL_RANGE, partition_of, slot_of
from kstate.messages import TilePhase
from kstate.plan import Plan, Shard, Tile, TopicPartition, backup_topic
from kstate.progress import SlotMap
from kstate.state.layout import key_suffix, shard_bounds, shard_prefix
from kstate.state.lineage import stored_lineage
from kstate.state.partial_cells import is_cell, parse_cell
from kstate.state.partition import object_within
from kstate.state.restore import RestoreTarget, restore
from kstate.state.values import split_value
from kstate.testing.cluster import Cluster
from kstate.testing.memory_store import MemoryStore
from kstate.testing.sample_job import PARTITIONS, Balance, Closed, Counted, Paid
from kstate.testing.sample_results import Expected
from kstate.testing.violations import Kind, Violation
from kstate.testing.world import Status


def output_violations(seen: Iterable[Counted | Balance | Closed], expected: Expected) -> Iterator[Violation]:
    """What is wrong with the outputs, given in the order of their partitions."""
    counts: dict[str, list[Counted]] = defaultdict(list)
    balances: dict[str, list[tuple[int, int]]] = defaultdict(list)
    closed: dict[tuple[str, str], list[Closed]] = defaultdict(list)
    for record in seen:
        match record:
            case Counted(word):
                counts[word].append(record)
            case Balance(account, payment, total):
                balances[account].append((payment, total))
            case Closed(what, key):
                closed[what, key].append(record)
    for word in sorted({*counts, *expected.lines_of}):
        lines = Counter(record.line for record in counts[word])
        wanted = expected.lines_of.get(word, Counter())
        yield from _difference(f"word {word!r}, line", lines, wanted) or _count_faults(word, counts[word], expected)
    for account in sorted({*balances, *expected.balances}):
        payments = Counter(payment for payment, _ in balances[account])
        rows = expected.balances.get(account, ())
        wanted = Counter(payment for payment, _ in rows)
        yield from _difference(f"account {account!r}, payment", payments, wanted) or _balance_faults(
            account, balances[account], rows
        )
    for place in sorted({*closed, *expected.closed}):
        yield from _window_faults(" ".join(place), closed[place], expected.closed.get(place, ()))


def _difference(what: str, seen: Counter[int], wanted: Counter[int]) -> list[Violation]:
    more, less = seen - wanted, wanted - seen
    found = [Violation(Kind.DOUBLED, f"{what} {n}: {seen[n]} times, expected {wanted[n]}") for n in sorted(more)]
    return found + [Violation(Kind.LOST, f"{what} {n}: {seen[n]} times, expected {wanted[n]}") for n in sorted(less)]


def _count_faults(word: str, records: Sequence[Counted], expected: Expected) -> list[Violation]:
    """Every line is there as often as it should be: then counts run from 1, and lines of one author are in order."""
    numbers = [record.n for record in records]
    if sorted(numbers) != list(range(1, len(numbers) + 1)):
        return [Violation(Kind.STATE, f"word {word!r} is counted {numbers}")]
    if numbers != sorted(numbers):
        return [Violation(Kind.ORDER, f"word {word!r} is counted {numbers}")]
    for author in {author for author in expected.authors.values() if author is not None}:
        lines = [record.line for record in records if expected.authors[record.line] == author]
        if lines != sorted(lines, key=list(expected.authors).index):
            return [Violation(Kind.ORDER, f"word {word!r}: the lines of {author} come in order {lines}")]
    return []


def _balance_faults(
    account: str, rows: Sequence[tuple[int, int]], wanted: Sequence[tuple[int, int]]
) -> list[Violation]:
    if list(rows) == list(wanted):
        return []
    kind = Kind.ORDER if sorted(rows) == sorted(wanted) else Kind.STATE
    return [Violation(kind, f"account {account!r}: {rows}, expected {wanted}")]


def _window_faults(key: str, rows: Sequence[Closed], wanted: Sequence[Closed]) -> list[Violation]:
    ends, wanted_ends = Counter(row.end for row in rows), Counter(row.end for row in wanted)
    if found := _difference(f"{key}: window until", ends, wanted_ends):
        return found
    if list(rows) == list(wanted):
        return []
    kind = Kind.ORDER if sorted(rows, key=_end) == list(wanted) else Kind.STATE
    return [Violation(kind, f"windows of {key}: {list(rows)}, expected {list(wanted)}")]


def _end(window: Closed) -> int:
    return window.end


def state_violations(cluster: Cluster, expected: Expected) -> Iterator[Violation]:
    """What is wrong with the state of each key: at its owner, and as a cold restore would find it."""
    plan = cluster.plan()
    if plan is None:
        return
    try:
        restored = _restored(cluster, plan)
    except KstateError as error:
        yield Violation(Kind.STATE, f"the backup cannot be restored: {error}")
        return
    for uid, state, key, value in expected.states():
        key_bytes = key.encode()
        partition, slot = partition_of(key_bytes, PARTITIONS), slot_of(key_bytes)
        tile = next(t for t in plan.tiles if t.shard == Shard(uid, partition) and slot in t.key_range)
        state_id = plan.registry.states[uid, state]
        stored_key = shard_prefix(plan.registry.operators[uid], partition) + key_suffix(slot, state_id, key_bytes)
        local = _local(cluster, tile)
        for where, store in (
            ("restored", restored),
            (f"local, at {tile.worker}", restored if local is None else local),
        ):
            (data,) = store.get_many([stored_key])
            found = None if data is None else cluster.blueprint.codecs.value(int).decode(split_value(data).payload)
            if found != value:
                yield Violation(Kind.STATE, f"{uid}.{state} of {key!r}, {where}: {found}, expected {value}")
    yield from _partial_faults(cluster, plan, restored, expected.paid)


def _local(cluster: Cluster, tile: Tile) -> MemoryStore | None:
    """The store of who runs a tile, to the end of a bounded run; None for one that crashed, or had only just got it:
    where the job was over by then its last writes may be lost, or not all restored.
    """
    process = cluster.processes.get(tile.worker or "")
    if process is None or process.status is Status.CRASHED:
        return None
    running = [
        t
        for t in cluster.workers[process].load.snapshot.tiles
        if t.phase == TilePhase.RUNNING and t.shard == tile.shard
    ]
    covered = SlotMap((t.key_range, True) for t in running)
    return None if covered.gaps(tile.key_range) else cluster.stores[process.name]


def _partial_faults(cluster: Cluster, plan: Plan, restored: MemoryStore, expected: int) -> Iterator[Violation]:
    """The objects of all key ranges together stand for every payment once."""
    tiles = [tile for tile in plan.tiles if tile.shard.operator == "totals"]
    local = [(tile, restored if (store := _local(cluster, tile)) is None else store) for tile in tiles]
    for where, places in (("restored", [(tile, restored) for tile in tiles]), ("local", local)):
        paid = sum(_paid(cluster, plan, tile, store) for tile, store in places)
        if paid != expected:
            yield Violation(Kind.STATE, f"totals.paid, {where}: {paid} payments in all, expected {expected}")


def _paid(cluster: Cluster, plan: Plan, tile: Tile, store: MemoryStore) -> int:
    """What the partial state's objects stand for within a tile; what lies in slots without lineage is not there."""
    operator_id, state_id = plan.registry.operators["totals"], plan.registry.states["totals", "paid"]
    prefix, decode = shard_prefix(operator_id, tile.shard.partition), cluster.blueprint.codecs.value(Paid).decode
    paid, lineage = 0, stored_lineage(store, operator_id, tile.shard.partition)
    for key, data in store.scan(*shard_bounds(operator_id, tile.shard.partition, FULL_RANGE)):
        if is_cell(suffix := key[len(prefix) :], {state_id}):
            cell = parse_cell(suffix)
            part = cell.valid.overlap(tile.key_range)
            if part is not None and lineage.get(cell.valid.lo) is not None:
                paid += object_within(decode(split_value(data).payload), cell.nominal, part).n
    return paid


def _restored(cluster: Cluster, plan: Plan) -> MemoryStore:
    """A fresh store with all state of the job, brought back from the backup by the engine itself."""
    store, app = MemoryStore(), cluster.blueprint.topology.app
    for uid, operator_id in plan.registry.operators.items():
        for partition in range(PARTITIONS):
            source = TopicPartition(backup_topic(app, uid), partition)
            target = RestoreTarget(source, operator_id, FULL_RANGE, partial=_partial_states(cluster, plan, uid))
            steps = restore(cluster.world.log, store, target, cluster.world.clock, cluster.blueprint.settings)
            run_steps(steps, cluster.world.clock)
    return store


def _partial_states(cluster: Cluster, plan: Plan, uid: str) -> frozenset[int]:
    states = cluster.blueprint.topology.operator(uid).states_of(PartialSpec)
    return frozenset(plan.registry.states[uid, state.name] for state in states)
