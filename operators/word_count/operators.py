"""The word frequency query of the SEEP paper: lines are split into words, each word counted on its own."""

from __future__ import annotations

from datetime import timedelta

from kstate import Context, Input, Operator, Output, ValueState
from operators.records import Line, Word, WordCount


class Split(Operator[None], uid="split"):
    """Lines to lower-case words; it keeps nothing, so a line may have any key or none."""

    lines = Input(Line, topic="lines", event_time="ts", lateness=timedelta(seconds=2))
    words = Output(Word, key="word")

    @lines.each
    def split(self, line: Line, ctx: Context) -> None:
        for word in line.text.lower().split():
            self.words.emit(Word(word))


class Count(Operator[str], uid="count"):
    """A running count per word: every occurrence is answered with the number of occurrences so far."""

    words = Input(Split.words)
    counts = Output(WordCount, topic="word-counts")
    seen = ValueState(int, default=0)

    @words.each
    def add(self, word: Word, ctx: Context) -> None:
        n = self.seen.get() + 1
        self.seen.set(n)
        self.counts.emit(WordCount(word.word, n))
