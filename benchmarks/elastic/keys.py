"""The keys of the load, in groups that can be watched: 64 equal parts of the key space in each partition."""

from __future__ import annotations

from collections.abc import Iterable

from kstate.keyspace import SLOTS, KeyRange, partition_of, slot_of
from kstate.plan import Plan

PARTITIONS = 4
PARTS = 64
GROUPS = PARTITIONS * PARTS
WIDTH = SLOTS // PARTS
"""Slots of a group."""


def group_of(key: bytes) -> int:
    """The group of a key: its partition, then its part of the key space."""
    return partition_of(key, PARTITIONS) * PARTS + slot_of(key) // WIDTH


def keys(per_group: int) -> list[bytes]:
    """So many keys of each group, always the same ones; one of each group in turn, so that all are served evenly."""
    found: list[list[bytes]] = [[] for _ in range(GROUPS)]
    missing, number = GROUPS * per_group, 0
    while missing:
        key = b"sensor-%08d" % number
        number += 1
        group = found[group_of(key)]
        if len(group) < per_group:
            group.append(key)
            missing -= 1
    return [group[turn] for turn in range(per_group) for group in found]


def groups_of(partition: int, key_range: KeyRange) -> set[int]:
    """The groups that a key range of a partition touches."""
    return {partition * PARTS + part for part in range(key_range.lo // WIDTH, (key_range.hi - 1) // WIDTH + 1)}


def groups_owned(plan: Plan, incarnations: Iterable[str]) -> set[int]:
    """The groups that these workers own, at least in part."""
    wanted = set(incarnations)
    owned = (groups_of(tile.shard.partition, tile.key_range) for tile in plan.tiles if tile.worker in wanted)
    return set().union(*owned)
