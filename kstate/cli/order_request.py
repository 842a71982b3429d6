"""Orders as people type them, checked as far as the newest plan tells, before the leader is asked.

The leader has the last word: what is refused here would be refused there, with the same mend, some milliseconds later.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kstate.coordinator.control import ControlView
from kstate.coordinator.observed import Observed
from kstate.coordinator.scene import counted
from kstate.errors import ConfigError
from kstate.keyspace import FULL_RANGE, SLOTS, KeyRange
from kstate.messages import Order, OrderKind
from kstate.plan import Plan, Shard, Tile


@dataclass(frozen=True, slots=True)
class Request:
    """What was typed, its numbers read; `at` is a slot, or a fraction of the range where it is a float."""

    kind: OrderKind
    shard: Shard | None = None
    key_range: KeyRange | None = None
    at: int | float | None = None
    parts: int | None = None
    target: str | None = None
    worker: str | None = None

    def __str__(self) -> str:
        what = [self.kind.value, *map(str, filter(None, (self.shard, self.key_range, self.worker)))]
        return " ".join([*what, *([f"to {self.target}"] if self.target else [])])


def read_shard(operator: str, partition: str) -> Shard:
    """An operator's partition. Raises ConfigError."""
    if not partition.isdecimal():
        raise ConfigError(f"Partition {partition!r} of '{operator}' is no number.", hint="write a number from 0 on.")
    return Shard(operator, int(partition))


def read_range(text: str | None) -> KeyRange | None:
    """`LO:HI`, slots in decimal or as 0x…; a side that is left out is the end of the key space. Raises ConfigError."""
    if text is None:
        return None
    mend = f"write LO:HI with 0 <= LO < HI <= {SLOTS}, as in 0:0x8000; a side may be left out."
    lo, colon, hi = text.partition(":")
    if not colon:
        raise ConfigError(f"{text!r} is no key range.", hint=mend)
    ends = _slot(lo) if lo else 0, _slot(hi) if hi else SLOTS
    if not 0 <= ends[0] < ends[1] <= SLOTS:
        raise ConfigError(f"Key range {text!r} is empty or outside of the key space.", hint=mend)
    return KeyRange(*ends)


def read_cut(text: str | None) -> int | float | None:
    """A slot, or a fraction of the range between 0 and 1. Raises ConfigError."""
    if text is None:
        return None
    try:
        return int(text, 0)
    except ValueError:
        pass
    try:
        fraction = float(text)
    except ValueError:
        raise ConfigError(
            f"--at {text!r} is neither a slot nor a fraction.", hint="write a slot, as 0x8000, or a fraction, as 0.5."
        ) from None
    if not 0 < fraction < 1:
        raise ConfigError(
            f"--at {text} is no fraction of a key range.",
            hint="it lies between 0 and 1, as 0.5; slots are whole numbers.",
        )
    return fraction


def checked_order(request: Request, order_id: str, observed: Observed, app: str) -> Order:
    """The order to send. Raises ConfigError for what the newest plan does not know or allow."""
    view = observed.control
    plan = _present_plan(view, app)
    if request.shard is not None:
        _check_shard(request.shard, plan)
    names = _names(observed)
    for name in filter(None, (request.target, request.worker)):
        _check_worker(name, names, view, app)
    order = Order(order_id, request.kind, request.shard, request.key_range, request.worker, request.target)
    return order if request.kind is not OrderKind.SPLIT else _split(order, request, plan)


def _present_plan(view: ControlView, app: str) -> Plan:
    if view.halted is not None:
        raise ConfigError(
            f"Job '{app}' is halted: {view.halted.reason}", hint="mend that, start the job again, then order."
        )
    if view.plan is None:
        raise ConfigError(
            f"Job '{app}' has no plan yet: no worker has joined it.",
            hint="start workers: `kstate worker JOB --name …`.",
        )
    if view.plan.complete:
        raise ConfigError(f"The bounded run of job '{app}' is complete: nothing runs.", hint="start it again first.")
    return view.plan


def _check_shard(shard: Shard, plan: Plan) -> None:
    partitions: dict[str, int] = {}
    for tile in plan.tiles:
        known = tile.shard
        partitions[known.operator] = max(partitions.get(known.operator, 0), known.partition + 1)
    if shard.operator not in partitions:
        raise ConfigError(
            f"Job '{plan.app}' has no operator '{shard.operator}'.", hint=f"its operators are: {_listed(partitions)}."
        )
    if shard.partition >= partitions[shard.operator]:
        count = partitions[shard.operator]
        known_ones = "only partition 0" if count == 1 else f"partitions 0 to {count - 1}"
        raise ConfigError(
            f"Operator '{shard.operator}' has no partition {shard.partition}.", hint=f"it has {known_ones}."
        )


def _names(observed: Observed) -> list[str]:
    """Live workers: members of the plan, and those who report and may become members."""
    view = observed.control
    assert view.plan is not None
    members = {m.name for m in view.plan.members if m.incarnation not in view.dead}
    heard = {h.beat.name for i, h in observed.heard.items() if i not in view.dead and not h.beat.leaving}
    return sorted(members | heard, key=lambda name: (len(name), name))


def _check_worker(name: str, names: list[str], view: ControlView, app: str) -> None:
    if name in names:
        return
    mend = f"choose among those who live: {_listed(names)}." if names else "start workers first."
    if name in view.names.values():
        raise ConfigError(f"Worker '{name}' of job '{app}' is dead.", hint=f"start it again, or {mend}")
    raise ConfigError(
        f"Job '{app}' has no worker '{name}'.", hint=f"{mend} Workers go by the name they are started with."
    )


# -- splits


def _split(order: Order, request: Request, plan: Plan) -> Order:
    """Where to cut, as a slot."""
    whole = request.key_range or _meant_tile(order, request.at, plan).key_range
    parts = request.parts or 2
    if whole.width < parts:
        raise ConfigError(
            f"{order.shard} {whole} cannot be cut in {parts}: it has {counted(whole.width, 'slot')}.",
            hint="a single slot, or a single hot key, cannot be split; aggregate it in two stages instead.",
        )
    at = _cut(request.at, whole)
    return Order(order.id, order.kind, order.shard, request.key_range, None, order.target, at, parts)


def _meant_tile(order: Order, at: int | float | None, plan: Plan) -> Tile:
    """The only one, or the one that a slot lies in."""
    tiles = [tile for tile in plan.tiles if tile.shard == order.shard]
    found = [tile for tile in tiles if isinstance(at, int) and at in tile.key_range] if len(tiles) > 1 else tiles
    if not found:
        ranges = sorted((tile.key_range for tile in tiles), key=lambda key_range: key_range.lo)
        raise ConfigError(
            f"{order.shard} is cut in {len(tiles)} already.",
            hint=f"say which to split: --range {' or '.join(f'0x{r.lo:04x}:0x{r.hi:04x}' for r in ranges)}.",
        )
    return found[0]


def _cut(at: int | float | None, whole: KeyRange) -> int | None:
    slot = whole.lo + round(whole.width * at) if isinstance(at, float) else at
    if slot is None or whole.lo < slot < whole.hi:
        return slot
    raise ConfigError(
        f"A cut at 0x{slot:04x} leaves nothing on one side of {whole}.",
        hint=f"choose a slot from 0x{whole.lo + 1:04x} to 0x{whole.hi - 1:04x}, or a fraction, as 0.5.",
    )


def _slot(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise ConfigError(
            f"{text!r} is no slot.", hint=f"slots are whole numbers from 0 to {FULL_RANGE.hi - 1}, also as 0x8000."
        ) from None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
