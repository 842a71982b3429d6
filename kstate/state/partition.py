"""partition-processing-state: a shard's state as that of several key ranges, and back.

Paper: SEEP, section 3.3, partition-processing-state. Keyed state needs no work: entries are ordered by slot, and
lineage and progress are maps over slots. Where to cut is a matter of load. Partial state is cut by its own class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kstate.keyspace import KeyRange


def cut_points(key_range: KeyRange, n: int, weights: Mapping[int, float] | None = None) -> list[int]:
    """The n - 1 slots, ascending, at which n parts of about equal weight begin, the first one left out; none is empty.

    `weights`: slot → its load; without it, or where it says nothing, every slot counts alike. For n = 2 the weighted
    median. Raises ValueError for more parts than slots.
    """
    if not 1 <= n <= key_range.width:
        raise ValueError(f"key range {key_range} of {key_range.width} slots cannot be cut into {n} parts")
    total = sum(_weight(weights, slot) for slot in range(key_range.lo, key_range.hi)) if weights else 0.0
    if not total:
        return [key_range.lo + key_range.width * part // n for part in range(1, n)]
    assert weights is not None
    cuts: list[int] = []
    below, slot = 0.0, key_range.lo
    for part in range(1, n):
        last = key_range.hi - (n - part)  # leaves a slot for each part to come
        first = (cuts[-1] if cuts else key_range.lo) + 1
        while slot < last and (slot < first or below + _weight(weights, slot) / 2 < total * part / n):
            below += _weight(weights, slot)
            slot += 1
        cuts.append(slot)
    return cuts


def cut_range(key_range: KeyRange, cuts: list[int]) -> list[KeyRange]:
    """The parts of a range between ascending cuts within it."""
    return [KeyRange(lo, hi) for lo, hi in zip([key_range.lo, *cuts], [*cuts, key_range.hi], strict=True)]


def _weight(weights: Mapping[int, float], slot: int) -> float:
    return weights.get(slot, 0.0)


def object_within(
    value: Any,
    made_for: KeyRange,
    wanted: KeyRange,
    split: Callable[[Any, float], tuple[Any, Any]] = lambda value, fraction: value.split(fraction),
    merge: Callable[[Any, Any], Any] = lambda lower, upper: lower.merge(upper),
) -> Any:
    """What of a partial state's object stands for a part of its range.

    It is cut into halves, and these again, and what lies within the part is merged. So whoever wants another part of
    the same object cuts it at the same slots, without knowing of the others: together all parts are the object, however
    its class rounds.
    """
    if wanted == made_for:
        return value
    middle = (made_for.lo + made_for.hi) // 2
    lower, upper = split(value, (middle - made_for.lo) / made_for.width)
    halves = [(KeyRange(made_for.lo, middle), lower), (KeyRange(middle, made_for.hi), upper)]
    found = [
        object_within(half, its_range, part, split, merge)
        for its_range, half in halves
        if (part := its_range.overlap(wanted))
    ]
    return found[0] if len(found) == 1 else merge(*found)
