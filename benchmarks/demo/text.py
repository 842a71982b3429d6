"""The demo's input: real English text, and what counting its words must give."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import cycle


@dataclass(frozen=True, slots=True)
class Text:
    """Lines in the order in which they are written, and how often each word occurs in all of them."""

    lines: tuple[str, ...]
    counts: Mapping[str, int]

    @property
    def words(self) -> int:
        """Words in all lines together."""
        return sum(self.counts.values())


def repeated(source: tuple[str, ...], words_min: int) -> Text:
    """The source's lines over and over, until there are enough words; a word is what stands between white space."""
    if not any(line.split() for line in source):
        raise ValueError("the source has no words")
    lines: list[str] = []
    counts: Counter[str] = Counter()
    words = 0
    for line in cycle(source):
        found = line.lower().split()
        lines.append(line)
        counts.update(found)
        words += len(found)
        if words >= words_min:
            return Text(tuple(lines), counts)
    raise AssertionError("a cycle does not end")


def python_topics() -> tuple[str, ...]:
    """The lines of Python's built-in help on keywords and topics, which comes with every CPython."""
    from pydoc_data.topics import topics

    return tuple(line for text in topics.values() for line in text.splitlines() if line.strip())
