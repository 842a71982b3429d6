"""Elastic, fault-tolerant, exactly-once stateful stream processing on Kafka.

An operator is a class: typed inputs, outputs and keyed state are its attributes, handlers attach to them by decorator.

    class Count(Operator[str], uid="count"):
        words = Input(Split.words)
        counts = Output(WordCount, topic="word-counts")
        seen = ValueState(int, default=0)

        @words.each
        def add(self, word: Word, ctx: Context) -> None:
            self.seen.set(self.seen.get() + 1)
            self.counts.emit(WordCount(self.key, self.seen.get()))

    job = Job("demo", [Split, Count])
"""

from kstate.api.context import BatchContext, Context, Source
from kstate.api.job import Job
from kstate.api.operator import Operator, Reject
from kstate.api.state import ListState, MapState, PartialState, ValueState
from kstate.api.streams import Input, Output, Table
from kstate.api.timers import Timer, TimerMap
from kstate.api.windows import Hopping, Session, Tumbling, Window, WindowState
from kstate.errors import ConfigError, KstateError, OperatorError
from kstate.errors import DecodeError as DecodeError  # no operator meets it: what cannot be read never reaches one
from kstate.keys import Int32
from kstate.times import UNKNOWN_TIME

__all__ = [
    "Operator",
    "Input",
    "Output",
    "Table",
    "ValueState",
    "ListState",
    "MapState",
    "WindowState",
    "Tumbling",
    "Hopping",
    "Session",
    "Window",
    "PartialState",
    "Timer",
    "TimerMap",
    "Context",
    "BatchContext",
    "Source",
    "UNKNOWN_TIME",
    "Job",
    "Reject",
    "Int32",
    "KstateError",
    "ConfigError",
    "OperatorError",
]
