"""Records, and operators made of single declarations, for tests of the wiring."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from types import new_class
from typing import Any, NamedTuple

from kstate import Input, Int32, Job, Operator, Timer, TimerMap
from kstate.api.specs import Topology
from kstate.api.topology import examine, resolve


@dataclass(frozen=True, slots=True)
class Line:
    text: str
    ts: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Word:
    word: str
    weight: float
    place: Int32
    number: int


class Place(NamedTuple):
    word: str
    number: int


def topology(*operators: type[Operator[Any]], **options: Any) -> Topology:
    """The topology of a job of these operators."""
    return resolve(Job("app", operators, **options))


def faults(*operators: type[Operator[Any]], app: str = "app", **options: Any) -> list[str]:
    """What is wrong with a job of these operators."""
    return [str(fault) for fault in examine(Job(app, operators, **options))[1]]


def declare(uid: str = "op", key: Any = str, **attributes: Any) -> Any:
    """An operator class with a handler on each input and timer that has none."""
    for each in attributes.values():
        if isinstance(each, Input) and not each.handlers and not each.batch_handlers:
            each.each(lambda op, record, ctx: None)
        elif isinstance(each, Timer) and not each.handlers:
            each.fires(lambda op, ctx: None)
        elif isinstance(each, TimerMap) and not each.handlers:
            each.fires(lambda op, tag, ctx: None)
    return new_class(uid.title(), (Operator[key],), {"uid": uid}, lambda body: body.update(attributes))


def bare(**attributes: Any) -> Any:
    """An operator class as it is: what has no handler gets none."""
    return new_class("Bare", (Operator[str],), {"uid": "op"}, lambda body: body.update(attributes))


def lines(**options: Any) -> Any:
    """An input of topic `lines`."""
    return Input(Line, **({"topic": "lines"} | options))
