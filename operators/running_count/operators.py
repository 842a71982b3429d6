"""Words are counted one by one: the job of `make demo`, whose results can be checked record by record."""

from __future__ import annotations

from kstate import Context, Input, Operator, Output, ValueState
from operators.records import RunningCount, Word
from operators.word_count.operators import Split


class Count(Operator[str], uid="count"):
    """A running count per word: every occurrence is answered with the number of occurrences so far."""

    words = Input(Split.words)
    counts = Output(RunningCount, topic="running-counts")
    seen = ValueState(int, default=0)

    @words.each
    def add(self, word: Word, ctx: Context) -> None:
        n = self.seen.get() + 1
        self.seen.set(n)
        self.counts.emit(RunningCount(word.word, n))
