"""What was done to the job, and what its keys felt of it; pure, from what was done and when results were seen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from benchmarks.demo.gaps import Gaps, Group, Times, gaps
from kstate.keyspace import FULL_RANGE, KeyRange
from kstate.plan import Shard


@dataclass(frozen=True, slots=True)
class Carried:
    """A key range that went from one worker to another; workers by name."""

    shard: Shard
    key_range: KeyRange
    source: str
    target: str

    @property
    def what(self) -> str:
        """As people read it."""
        return f"{self.shard}" if self.key_range == FULL_RANGE else f"{self.shard} {self.key_range}"


@dataclass(frozen=True, slots=True)
class Deed:
    """Something that was done to the job; times are monotonic seconds."""

    name: str
    since: float
    """When it was ordered, or done to it."""
    done: float
    """When the control topic said that it was carried out."""
    until: float
    """Up to here the gaps that it caused are looked for."""
    moved: tuple[Carried, ...] = ()
    course: str = ""
    """How it went."""

    def moves(self, operator: str, group: Group) -> bool:
        """Whether the keys of a group, of this operator, changed hands."""
        here = [each for each in self.moved if each.shard.operator == operator]
        return any(group.within(each.shard.partition, each.key_range) for each in here)


@dataclass(frozen=True, slots=True)
class Effect:
    """What the keys felt of a deed."""

    deed: Deed
    moved: Gaps | None
    """None: nothing moved."""
    others: Gaps | None
    """None: everything moved."""

    @property
    def faults(self) -> list[str]:
        """What could not be measured."""
        looked = {"the moved keys": self.moved, "the other keys": self.others}
        faults = {whose: found.fault for whose, found in looked.items() if found}
        return [f"{self.deed.name}: the gaps of {whose}: {fault}" for whose, fault in faults.items() if fault]


def effect(deed: Deed, times: Times, groups: Collection[Group], operator: str) -> Effect:
    """The longest gaps, in the window of a deed, of the key groups that it moved and of all others."""
    moved = [group for group in groups if deed.moves(operator, group)]
    others = [group for group in groups if group not in moved]
    looked = [gaps(times, each, deed.since, deed.until) if each else None for each in (moved, others)]
    return Effect(deed, *looked)


HEADER = ("at", "what was done", "what moved", "pause of\nits keys", "longest gap\nof the others")


def rows(effects: Sequence[Effect], began: float) -> list[tuple[str, ...]]:
    """The table: times in seconds since the demo began."""
    return [
        (
            f"{each.deed.since - began:.1f} s",
            f"{each.deed.name}\n{each.deed.course}" if each.deed.course else each.deed.name,
            moved_text(each.deed.moved),
            gap_text(each.moved),
            gap_text(each.others),
        )
        for each in effects
    ]


def moved_text(moved: Sequence[Carried]) -> str:
    """What moved, and below it from where to where."""
    ways: dict[tuple[str, str], list[str]] = defaultdict(list)
    for each in moved:
        ways[each.source, each.target].append(each.what)
    return (
        "\n".join(f"{', '.join(what)}\n  {source} → {target}" for (source, target), what in ways.items()) or "nothing"
    )


def gap_text(found: Gaps | None) -> str:
    """A figure, or why there is none."""
    if found is None:
        return "–"
    if found.longest is None or found.silent:
        return "not seen"
    return f"{found.longest.seconds:.2f} s"
