"""Declarations as users write them: what a class knows, what an instance gets, what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from inspect import isfunction, signature
from types import new_class
from typing import Any, Generic, NamedTuple, TypeVar

import pytest

from kstate import (
    ConfigError,
    Context,
    Input,
    ListState,
    MapState,
    Operator,
    Output,
    PartialState,
    Table,
    Timer,
    TimerMap,
    Tumbling,
    ValueState,
    WindowState,
)
from kstate.api.operator import declarations, key_type_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Order:
    customer: str
    amount: int


class Pair(NamedTuple):
    left: str
    right: int


class Base(Operator[str]):
    """Abstract: no uid."""

    orders = Input(Order, topic="orders")
    totals = Output(Order)
    total = ValueState(int, default=0)
    factor = 1

    @orders.each
    def add(self, order: Order, ctx: Context) -> None:
        self.total.set(self.total.get() + order.amount * self.factor)


class Doubled(Base, uid="doubled"):
    factor = 2


class Tripled(Base, uid="tripled"):
    factor = 3


def test_a_declaration_knows_its_operator_and_attribute() -> None:
    """Messages and topics are made from owner and attribute."""
    assert (Doubled.total.owner, Doubled.total.attribute) == (Doubled, "total")
    assert str(Doubled.totals) == "Doubled.totals"


def test_a_subclass_has_declarations_of_its_own() -> None:
    """Two operators made from one base share options, never identity: an edge names one of them."""
    assert Doubled.totals is not Tripled.totals
    assert Doubled.totals is not Base.totals
    assert Doubled.totals.declared == Tripled.totals.declared == Base.totals.declared


def test_an_inherited_input_keeps_its_handler() -> None:
    """Reuse needs no second decorator."""
    assert Tripled.orders.handlers == (Base.add,)


def test_a_handler_added_in_one_subclass_is_not_seen_by_another() -> None:
    """The base's declaration is copied, not shared."""

    class Left(Base, uid="left"):
        pass

    Left.orders.each(Base.add)
    assert len(Left.orders.handlers) == 2
    assert len(Doubled.orders.handlers) == 1


def test_a_bound_handle_in_the_instance_hides_the_declaration() -> None:
    """The engine binds by writing into the instance's dict; a data descriptor would win over it."""
    operator = Doubled()
    operator.__dict__["total"] = handle = object()
    assert operator.total is handle
    assert isinstance(Doubled.total, ValueState)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (Doubled.total.get, "Doubled.total.get()"),
        (lambda: Doubled.total.set(1), "Doubled.total.set()"),
        (Doubled.total.pop, "Doubled.total.pop()"),
        (Doubled.total.clear, "Doubled.total.clear()"),
        (lambda: Doubled().totals.emit(Order("c", 1)), "Doubled.totals.emit()"),
    ],
)
def test_an_unbound_call_names_operator_and_attribute(call: Any, name: str) -> None:
    """A declaration holds nothing; whoever asks it is told where to ask."""
    with pytest.raises(ConfigError) as raised:
        call()
    assert name in str(raised.value)
    assert "'doubled'" in str(raised.value)
    assert "Mend: call self.tota" in str(raised.value)


class Total(NamedTuple):
    n: int

    def split(self, fraction: float, /) -> tuple[Total, Total]:
        return self, self

    def merge(self, other: Total, /) -> Total:
        return self


class Kinds(Operator[str], uid="kinds"):
    """A declaration of each kind."""

    value = ValueState(int)
    items = ListState(int)
    pages = MapState(str, int)
    total = PartialState(Total, initial=lambda: Total(0))
    count = WindowState(int, Tumbling(timedelta(seconds=1)), default=0)
    table = Table(Order, topic="table")
    gap = Timer()
    tags = TimerMap(str)
    out = Output(Order, topic="out")


DECORATORS = {"each", "batch", "fires", "closes", "changed"}


@pytest.mark.parametrize("attribute", declarations(Kinds))
def test_every_method_of_a_declaration_says_that_it_is_unbound(attribute: str) -> None:
    """In an instance that the engine did not make; what was called is named. Later methods, too."""
    declared = getattr(Kinds(), attribute)
    methods = {name: each for name, each in vars(type(declared)).items() if isfunction(each) and name != "__init__"}
    assert len(methods.keys() - DECORATORS) >= 2
    for name in methods.keys() - DECORATORS:
        needed = [p for p in signature(methods[name]).parameters.values() if p.default is p.empty]
        with pytest.raises(ConfigError, match=rf"Kinds\.{attribute}\.{name}\(\) was called on the declaration"):
            methods[name](declared, *needed[1:])


@pytest.mark.parametrize("name", ["key", "uid", "open", "close"])
def test_names_of_the_operator_itself_are_refused(name: str) -> None:
    """A state named `key` would hide the key."""
    with pytest.raises(ConfigError, match=f"{name} is a name of Operator itself"):
        new_class("Bad", (Operator,), {"uid": "bad"}, lambda body: body.update({name: ValueState(int)}))


def test_an_overridden_declaration_is_the_subclass_s() -> None:
    """What a subclass declares anew, or hides with something else, replaces the inherited one."""

    class Other(Base, uid="other"):
        total = ValueState(str)  # type: ignore[arg-type, assignment]
        totals = None  # type: ignore[assignment]

    assert Other.total.declared.type is str
    assert set(declarations(Other)) == {"orders", "total"}


def test_the_key_type_is_found_through_generic_bases() -> None:
    """K of Operator[K], however many bases lie between."""

    class Generalised(Operator[T], Generic[T]):
        pass

    class Narrow(Generalised[Pair], uid="narrow"):
        pass

    class Deeper(Narrow, uid="deeper"):
        pass

    class Stateless(Operator[None], uid="stateless"):
        pass

    assert key_type_of(Deeper) is Pair
    assert key_type_of(Doubled) is str
    assert key_type_of(Stateless) is type(None)
    assert isinstance(key_type_of(Generalised), TypeVar)


def test_a_state_without_default_is_told_from_one_whose_default_is_false() -> None:
    """default=0 is a default."""
    assert ValueState(int, default=0).declared.has_default
    assert not ValueState(int).declared.has_default


def test_options_of_later_releases_are_refused() -> None:
    """A misspelt or unknown option never passes in silence."""
    with pytest.raises(TypeError, match="tll"):
        ValueState(int, tll=1)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="re_key"):
        Input(Order, topic="orders", re_key="customer")  # type: ignore[call-overload]
