"""From what the observer saw to figures: latency, gaps, who went on when."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

import numpy as np

from benchmarks.elastic.cluster import Rows
from benchmarks.elastic.keys import GROUPS

Floats = np.ndarray[Any, np.dtype[np.float64]]


def of_groups(rows: Rows, groups: Collection[int]) -> Rows:
    """The rows of these groups."""
    wanted = np.zeros(GROUPS, bool)
    wanted[list(groups)] = True
    return cast("Rows", rows[wanted[rows["group"]]])


def produced_in(rows: Rows, begin: float, end: float) -> Rows:
    """The rows whose readings were produced in [begin, end)."""
    return cast("Rows", rows[(rows["at"] >= begin) & (rows["at"] < end)])


def latencies_ms(rows: Rows) -> Floats:
    """From the moment a reading was produced to that at which its result was seen."""
    return np.asarray((rows["arrived"] - rows["at"]) * 1000, np.float64)


def spread(values: Collection[float] | Floats) -> dict[str, float]:
    """Median, 95th and 99th percentile, greatest; of nothing: nothing."""
    found = np.asarray(list(values) if not isinstance(values, np.ndarray) else values, np.float64)
    if not len(found):
        return {"n": 0}
    p50, p95, p99 = np.percentile(found, [50, 95, 99])
    return {"n": len(found), "p50": rounded(p50), "p95": rounded(p95), "p99": rounded(p99), "max": rounded(found.max())}


def rounded(value: float) -> float:
    """A tenth of a millisecond is more than anybody can measure here."""
    return round(float(value), 1)


def longest_gaps_ms(rows: Rows, begin: float, end: float, groups: Collection[int]) -> Floats:
    """Per group the longest time without a result that touches [begin, end].

    `rows` must begin well before and end well after: a group that is silent to their ends has that time as its gap.
    """
    edges = [rows["arrived"].min(initial=begin), rows["arrived"].max(initial=end)]
    found = of_groups(rows, groups)
    order = np.lexsort((found["arrived"], found["group"]))
    arrived, group = found["arrived"][order], found["group"][order]
    longest = []
    for each in sorted(groups):
        lo, hi = np.searchsorted(group, each), np.searchsorted(group, each, "right")
        times = np.concatenate((edges[:1], arrived[lo:hi], edges[1:]))
        gaps = np.diff(times)[(times[1:] > begin) & (times[:-1] < end)]
        longest.append(gaps.max(initial=0.0) * 1000)
    return np.asarray(longest)


def first_results(rows: Rows, groups: Collection[int], *, after: float, without: int) -> dict[int, float]:
    """When each group's first result after a moment arrived that another process than `without` made."""
    found = of_groups(rows[(rows["arrived"] > after) & (rows["worker"] != without)], groups)
    each, index = np.unique(found["group"], return_index=True)  # the first of each, as rows are in order of arrival
    return dict(zip(each.tolist(), found["arrived"][index].tolist(), strict=True))
