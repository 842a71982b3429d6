"""The word frequency query of the SEEP paper: lines are split into words, each word is counted per window."""

from __future__ import annotations

from datetime import timedelta

from kstate import Context, Input, Operator, Output, Tumbling, Window, WindowState
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
    """How often each word occurs in 30 seconds, reported once, when they are over."""

    words = Input(Split.words)
    counts = Output(WordCount, topic="word-counts")
    n = WindowState(int, Tumbling(timedelta(seconds=30)), default=0)

    @words.each
    def add(self, word: Word, ctx: Context) -> None:
        self.n.update(lambda n: n + 1)

    @n.closes
    def report(self, n: int, window: Window, ctx: Context) -> None:
        self.counts.emit(WordCount(self.key, window.start, n))
