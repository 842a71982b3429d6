"""A table against a dictionary: any order of records, deletions, questions and crashes."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from kstate import Context, Input, Job, Operator, Output, Table
from kstate.testing import Driver


@dataclass(frozen=True, slots=True)
class Number:
    """A record of the table, a question's number, or an answer; −1: not there."""

    n: int


class Known(Operator[str], uid="known"):
    """Answers with what the table holds, and tells of each change."""

    numbers = Table(Number, topic="numbers")
    asks = Input(Number, topic="asks")
    answers = Output(Number, topic="answers")
    changes = Output(Number, topic="changes")

    @numbers.changed
    def tell(self, number: Number | None, ctx: Context) -> None:
        self.changes.emit(number or Number(-1))

    @asks.each
    def answer(self, _ask: Number, ctx: Context) -> None:
        self.answers.emit(self.numbers.get() or Number(-1))


KEYS = st.sampled_from(["a", "b", "c"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, st.integers(0, 9)),
        st.tuples(st.sampled_from(["delete", "ask"]), KEYS, st.just(0)),
        st.tuples(st.just("crash"), st.just(""), st.just(0)),
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=30)
@given(STEPS)
def test_a_table_is_a_dictionary_that_survives(steps: list[tuple[str, str, int]]) -> None:
    """Answers and changes are those of a dictionary, whatever crashed in between."""
    model: dict[str, int] = {}
    answers: list[Number] = []
    changes: list[Number] = []
    with Driver(Job("model", [Known])) as d:
        for what, key, number in steps:
            match what:
                case "put":
                    model[key] = number
                    changes.append(Number(number))
                    d.send(Known.numbers, Number(number), key=key)
                case "delete":
                    model.pop(key, None)
                    changes.append(Number(-1))
                    d.delete(Known.numbers, key)
                case "ask":
                    answers.append(Number(model.get(key, -1)))
                    d.send(Known.asks, Number(0), key=key)
                case _:
                    d.crash(at="now")
        assert (d.read(Known.answers), d.read(Known.changes)) == (answers, changes)
        for key in ("a", "b", "c"):
            held = d.state(Known.numbers, key=key)
            assert held == (Number(model[key]) if key in model else None)
