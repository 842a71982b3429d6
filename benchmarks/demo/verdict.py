"""Whether the results are exactly those of a run in which nothing ever failed.

A running count gives, for a word that occurs n times, the records 1, 2, … n, each once, in this order. So nothing needs
to be folded or compared approximately: every committed record has one place, and every place one record.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

EXAMPLES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was expected, and every record that deviates, by the way in which it does."""

    words: int
    distinct: int
    lost: int
    doubled: int
    out_of_order: int
    """Records behind a larger count of their word."""
    foreign: int
    """Records of a word, or with a count, that does not occur in the input."""
    examples: tuple[str, ...]

    @property
    def exactly_once(self) -> bool:
        """Nothing deviates."""
        return not (self.lost or self.doubled or self.out_of_order or self.foreign)

    def __str__(self) -> str:
        figures = f"{self.words:,} words, {self.distinct:,} distinct, {self.lost:,} lost, {self.doubled:,} doubled"
        if self.exactly_once:
            return f"exactly-once: {figures}"
        further = f", {self.out_of_order:,} out of order, {self.foreign:,} foreign"
        return f"NOT exactly-once: {figures}{further}; {'; '.join(self.examples)}"


@dataclass(slots=True)
class _Faults:
    """The deviations of one word's records."""

    lost: list[int]
    doubled: list[int]
    out_of_order: list[int]
    foreign: list[int]

    def __str__(self) -> str:
        kinds = {"lost": self.lost, "doubled": self.doubled, "out of order": self.out_of_order, "foreign": self.foreign}
        return ", ".join(f"{name} {counts[:3]}" for name, counts in kinds.items() if counts)


def by_word(records: Iterable[tuple[str, int]]) -> dict[str, list[int]]:
    """The counts of each word in the order of its records."""
    found: dict[str, list[int]] = defaultdict(list)
    for word, count in records:
        found[word].append(count)
    return found


def judge(expected: Mapping[str, int], found: Mapping[str, Sequence[int]]) -> Verdict:
    """Compare every record, per word and in order, with what the input demands: word → number of occurrences."""
    faults: dict[str, _Faults] = {}
    for word in {**expected, **found}:
        times = expected.get(word, 0)
        counts = found.get(word, ())
        if list(counts) != list(range(1, times + 1)):
            faults[word] = _faults(times, counts)
    listed = tuple(f"{word!r}: {fault}" for word, fault in list(faults.items())[:EXAMPLES_SHOWN])
    return Verdict(
        words=sum(expected.values()),
        distinct=len(expected),
        lost=sum(len(fault.lost) for fault in faults.values()),
        doubled=sum(len(fault.doubled) for fault in faults.values()),
        out_of_order=sum(len(fault.out_of_order) for fault in faults.values()),
        foreign=sum(len(fault.foreign) for fault in faults.values()),
        examples=listed,
    )


def _faults(times: int, counts: Sequence[int]) -> _Faults:
    """What is wrong with the records of a word that occurs so many times."""
    seen = Counter(counts)
    known = [count for count in counts if 1 <= count <= times]
    return _Faults(
        lost=[count for count in range(1, times + 1) if not seen[count]],
        doubled=[count for count, often in seen.items() if 1 <= count <= times for _ in range(often - 1)],
        out_of_order=[right for left, right in pairwise(known) if right < left],
        foreign=[count for count in counts if not 1 <= count <= times],
    )
