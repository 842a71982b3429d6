"""How long the results of a group of keys failed to come; pure, from the times at which a live reader saw them.

A *key group* is an eighth of the slots of one partition of the counting operator: some hundred words that share their
owner, frequent enough that the pauses between their results are those of the engine and not of the text. A *gap* is the
time between two successive results of one group.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from kstate.keyspace import SLOTS, KeyRange, partition_of, slot_of

GROUPS = 8
"""Of each partition."""
_WIDTH = SLOTS // GROUPS


class Group(NamedTuple):
    """One of the key groups of a partition."""

    partition: int
    number: int

    @property
    def key_range(self) -> KeyRange:
        """Its slots."""
        return KeyRange(self.number * _WIDTH, (self.number + 1) * _WIDTH)

    def within(self, partition: int, key_range: KeyRange) -> bool:
        """Whether all its keys are in a key range of a partition."""
        return partition == self.partition and self.key_range.overlap(key_range) == self.key_range

    def __str__(self) -> str:
        return f"[{self.partition}] {self.key_range}"


class Grouping:
    """Key → its group; remembers, as murmur2 in Python is slow."""

    def __init__(self, partitions: int) -> None:
        self.groups = tuple(Group(p, number) for p in range(partitions) for number in range(GROUPS))
        self._partitions = partitions
        self._known: dict[bytes, Group] = {}

    def __call__(self, key: bytes) -> Group:
        group = self._known.get(key)
        if group is None:
            group = self._known[key] = Group(partition_of(key, self._partitions), slot_of(key) // _WIDTH)
        return group


Times = Mapping[Group, Sequence[float]]
"""When results of each group were seen, ascending, monotonic seconds."""


@dataclass(frozen=True, slots=True)
class Gap:
    """The results of a group before and after which nothing of it was seen, monotonic seconds."""

    group: Group
    since: float
    until: float

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.until - self.since


@dataclass(frozen=True, slots=True)
class Gaps:
    """What was seen of some groups in a window of time."""

    groups: int
    """How many were looked at."""
    longest: Gap | None
    """None: there was no group of which anything can be said."""
    silent: tuple[Group, ...] = ()
    """Of these nothing was seen before the window or nothing after it: their longest gap is not known."""

    @property
    def fault(self) -> str:
        """Why the figure says nothing; empty when it does."""
        if self.silent:
            names = ", ".join(map(str, self.silent[:3]))
            return f"{len(self.silent)} of {self.groups} key groups were not seen before and after it, {names}"
        return "" if self.longest else "no key group was looked at"


def gaps(times: Times, groups: Iterable[Group], since: float, until: float) -> Gaps:
    """The longest gap of these groups of which some part lies within a window, also where it begins or ends outside."""
    groups = list(groups)
    silent, longest = [], None
    for group in groups:
        seen = times.get(group, ())
        if not seen or seen[0] > since or seen[-1] < until:
            silent.append(group)
        for before, after in pairwise(seen):
            if before < until and after > since and (longest is None or after - before > longest.seconds):
                longest = Gap(group, before, after)
    return Gaps(len(groups), longest, tuple(silent))
