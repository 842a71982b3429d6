"""What the elastic benchmark makes of what its observer saw: figures that flatter nobody."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from benchmarks.elastic.cluster import Rows
from benchmarks.elastic.figures import first_results, latencies_ms, longest_gaps_ms, produced_in, spread
from benchmarks.elastic.job import Mean, Reading
from benchmarks.elastic.keys import GROUPS, PARTITIONS, PARTS, group_of, groups_of, keys
from benchmarks.elastic.load import _value
from benchmarks.elastic.observer import ROW
from benchmarks.elastic.picture import latency_over_time
from kstate.adapters.avro import AvroCodecs
from kstate.keyspace import FULL_RANGE, SLOTS, KeyRange, partition_of, slot_of


def rows(*found: tuple[float, float, int, int]) -> Rows:
    """(arrived, at, group, worker)."""
    return np.array(list(found), ROW)


def test_a_groups_longest_gap_is_found_with_its_edges() -> None:
    """Also one that began before the window or goes on behind it; a gap elsewhere does not count."""
    seen = rows(
        (0.0, 0.0, 1, 7), (0.0, 0.0, 2, 7), (5.0, 5.0, 1, 7), (5.1, 5.1, 1, 7), (5.3, 5.3, 1, 7), (6.9, 6.9, 2, 7),
        (9.0, 9.0, 1, 7), (9.0, 9.0, 2, 7),
    )  # fmt: skip
    assert longest_gaps_ms(seen, 5.05, 5.25, [1, 2]) == pytest.approx([200, 6900])
    assert longest_gaps_ms(seen, 5.05, 6.0, [1]) == pytest.approx([3700])


def test_a_group_without_any_result_is_silent_all_the_time() -> None:
    """Nothing seen is the worst that can be seen, not nothing to report."""
    seen = rows((0.0, 0.0, 1, 7), (9.0, 9.0, 1, 7))
    assert longest_gaps_ms(seen, 4.0, 5.0, [3]) == pytest.approx([9000])


def test_the_first_results_are_those_of_others_than_the_victim() -> None:
    """What the victim committed before it died may still be on its way."""
    seen = rows((9.0, 8.9, 1, 9), (10.2, 9.9, 1, 7), (10.3, 9.9, 2, 9), (10.4, 9.9, 1, 9), (10.5, 9.9, 1, 9))
    assert first_results(seen, {1, 2, 3}, after=10.0, without=7) == {1: 10.4, 2: 10.3}


def test_latency_counts_for_the_time_of_production() -> None:
    """A result that comes after the window, of a reading within it, is the one that matters."""
    seen = rows((1.0, 0.9, 1, 7), (7.0, 1.5, 1, 7), (7.0, 2.5, 1, 7))
    assert list(latencies_ms(produced_in(seen, 1.0, 2.0))) == pytest.approx([5500])
    assert spread(latencies_ms(produced_in(seen, 0.0, 1.0)))["max"] == pytest.approx(100)
    assert spread([]) == {"n": 0}


def test_every_group_has_its_keys_and_every_range_its_groups() -> None:
    """Groups are equal parts of the key space of each partition; the load serves them in turn."""
    found = keys(2)
    assert [group_of(key) for key in found] == [*range(GROUPS), *range(GROUPS)]
    assert len(set(found)) == 2 * GROUPS
    assert keys(1) == found[:GROUPS]
    key = found[GROUPS - 1]
    assert (partition_of(key, PARTITIONS), slot_of(key) * PARTS // SLOTS) == (PARTITIONS - 1, PARTS - 1)
    assert groups_of(1, FULL_RANGE) == set(range(PARTS, 2 * PARTS))
    assert groups_of(0, KeyRange(SLOTS // 2, SLOTS)) == set(range(PARTS // 2, PARTS))
    assert groups_of(0, KeyRange(0, 1)) == {0}


def test_readings_and_results_have_the_form_that_load_and_observer_assume() -> None:
    """They are written and read by the column, without a codec."""
    codecs = AvroCodecs()
    for ballast in (b"", b"x" * 63, b"x" * 64, b"y" * 100_000):
        (reading,) = codecs.value(Reading).decode_many([_value(1.5, ballast)])
        assert (reading.at, reading.ballast) == (1.5, ballast)
    assert codecs.value(Mean).encode(Mean(1.5, 2.5, 42.0)) == struct.pack("<3d", 1.5, 2.5, 42.0)


def test_the_figure_is_drawn_of_any_rows() -> None:
    """Also where a tenth of a second is without any."""
    seen = rows((1.0, 0.9, 1, 7), (2.0, 1.5, 1, 7), (9.0, 8.5, 2, 7))
    text = latency_over_time(seen, [(1.0, 2.0, "split")], 0.0, 10.0)
    assert text.startswith("<svg")
    assert text.count("<polyline") == 2
