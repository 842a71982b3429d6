"""`rekey=`: a hop through a topic of kstate's own, so that records meet the state of another key than the message's.

`orders = Input(Order, topic="orders", rekey="customer")` of operator `enrich` becomes two things: a stateless operator
`enrich-orders-rekey` that reads `orders` and emits every record, unchanged, with the key `customer` to the internal
stream `<app>.enrich.orders`; and an input of `enrich` that reads this stream. The hop is an operator like any other: it
has its own progress, key ranges and dead letters, where records end up for which `rekey` raises or gives no key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import NoneType
from typing import Any, TypeVar

from kstate.api.faults import Faults
from kstate.api.operator import Operator
from kstate.api.resolve_ends import key_type_of_option
from kstate.api.specs import InputSpec, OperatorSpec, OutputSpec
from kstate.api.streams import Input
from kstate.plan import stream_topic
from kstate.typeinfo import type_name


def hop_uid(uid: str, name: str) -> str:
    """The uid of the operator that re-keys an input."""
    return f"{uid}-{name}-rekey"


def with_hop(
    app: str, cls: type[Operator[Any]], key_type: Any, given: InputSpec, rekey: str | Callable[[Any], Any]
) -> tuple[InputSpec, OperatorSpec]:
    """An input as the operator reads it behind the hop, and the hop."""
    uid, name = cls.uid or "", given.name
    topic = stream_topic(app, uid, name)
    hop = OperatorSpec(
        hop_uid(uid, name),
        type(f"{cls.__name__}Rekey", (Operator,), {"__doc__": f"Re-keys {cls.__qualname__}.{name}."}),
        NoneType,
        (replace(given, handler=_forward(name), batch=False, key_field=None),),
        (OutputSpec(name=name, topic=topic, record=given.record, key=rekey, key_type=key_type, internal=True),),
        (),
        hop_of=(uid, name),
    )
    behind = InputSpec(
        name=name,
        topic=topic,
        record=given.record,
        internal=True,
        source_uid=hop.uid,
        handler=given.handler,
        batch=given.batch,
    )
    return behind, hop


def rekey_faults(where: str, declared: Input[Any], record: Any, key_type: Any, faults: Faults) -> None:
    """A `rekey=` that gives no key of the operator."""
    options = declared.declared
    if options.rekey is None:
        return
    if options.key is not None:
        what = f"key={options.key!r} names the field that is the message key, rekey= the key to read by instead"
        faults.add(where, what, "keep one of them")
    if key_type is NoneType:
        faults.add(where, "rekey= has no effect: Operator[None] has no key", "give it a key type, Operator[str]")
        return
    kind = key_type_of_option(where, record, options.rekey, "rekey=", faults)
    if Any not in (kind, key_type) and kind != key_type and not isinstance(key_type, TypeVar):
        what = f"rekey= gives {type_name(kind)}, the operator's key is {type_name(key_type)}"
        faults.add(
            where, what, f"take a field or function that gives {type_name(key_type)}, or change K of Operator[K]"
        )


def _forward(name: str) -> Callable[[Any, Any, Any], None]:
    """The handler of a hop: the record goes on with the event time of the call."""

    def forward(operator: Any, record: Any, _context: Any) -> None:
        getattr(operator, name).emit(record)

    return forward
