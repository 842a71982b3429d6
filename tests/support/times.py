"""Random times of pieces, for properties."""

from __future__ import annotations

from hypothesis import strategies as st

from kstate.keyspace import KeyRange
from kstate.times import Times, Upstream, heard

i64 = st.integers(-(1 << 63), (1 << 63) - 1)
u64 = st.integers(0, (1 << 64) - 1)
topics = st.text(max_size=8)
key_ranges = st.lists(st.integers(0, 65536), min_size=2, max_size=2, unique=True).map(
    lambda ends: KeyRange(*sorted(ends))
)
upstreams = st.builds(Upstream, st.integers(0, 3), st.just(4), key_ranges, u64, i64, st.booleans())


@st.composite
def streams(draw: st.DrawFn) -> tuple[Upstream, ...]:
    """What was heard of one stream."""
    known: tuple[Upstream, ...] = ()
    for news in draw(st.lists(upstreams, max_size=5)):
        known = heard(known, news)
    return known


def times() -> st.SearchStrategy[Times]:
    """Any valid times."""
    numbers = st.dictionaries(topics, i64, max_size=3)
    return st.builds(
        Times, i64, i64, numbers, st.frozensets(topics, max_size=3), st.dictionaries(topics, streams(), max_size=2)
    )
