"""A job whose topics are framed with schema ids, and what a producer of another team writes into them."""

from __future__ import annotations

import io
import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from fastavro import parse_schema, schemaless_reader, schemaless_writer

from kstate import Context, Input, Int32, Job, Operator, Output, ValueState
from tests.support.registry_server import Schemas

APP = os.environ.get("KSTATE_TEST_APP", "under-test")
ONE = Int32(1)


@dataclass(frozen=True, slots=True)
class Order:
    """As the job's newest schema has it."""

    id: int
    price: float
    count: Int32 = ONE


@dataclass(frozen=True, slots=True)
class Bill:
    """What a customer owes after an order; n counts them."""

    customer: str
    order: int
    n: int
    total: float


class Bills(Operator[str], uid="bills"):
    """Framed keys and values in, framed values out."""

    orders = Input(Order, topic=f"{APP}-orders", format="confluent", key_format="confluent")
    bills = Output(Bill, topic=f"{APP}-bills", format="confluent")
    last = ValueState(Bill)

    @orders.each
    def add(self, order: Order, ctx: Context) -> None:
        before = self.last.get() or Bill(self.key, 0, 0, 0.0)
        bill = Bill(self.key, order.id, before.n + 1, before.total + order.price * order.count)
        self.last.set(bill)
        self.bills.emit(bill)


job = Job(APP, [Bills], epoch=timedelta(milliseconds=150))


def _order(*more: dict[str, Any]) -> dict[str, Any]:
    fields = [{"name": "id", "type": "long"}, {"name": "price", "type": "double"}, *more]
    return {"type": "record", "name": "Order", "namespace": "shop", "fields": fields}


KEY = {"type": "string", "avro.java.string": "String"}
V1 = _order()
V2 = _order(
    {"name": "count", "type": "int", "default": 1}, {"name": "note", "type": ["null", "string"], "default": None}
)


@dataclass(frozen=True, slots=True)
class Shop:
    """The producer of the orders: it knows the registry, not the job; readers go by ids, not by its subjects."""

    schemas: Schemas

    def key(self, customer: str) -> bytes:
        """A framed key."""
        return self._framed("orders-key", KEY, customer)

    def order(self, schema: Any, **fields: Any) -> bytes:
        """A framed order, written with this schema."""
        return self._framed("orders-value", schema, fields)

    def _framed(self, subject: str, schema: Any, value: Any) -> bytes:
        out = io.BytesIO()
        schemaless_writer(out, parse_schema(schema), value)
        return struct.pack(">BI", 0, self.schemas.add(subject, schema)) + out.getvalue()

    def read(self, data: bytes) -> Mapping[str, Any]:
        """A record of anybody, by the id in front of it."""
        marker, number = struct.unpack(">BI", data[:5])
        assert marker == 0
        found: Any = schemaless_reader(
            io.BytesIO(data[5:]), parse_schema(json.loads(self.schemas.texts[number - 1])), None
        )
        return dict(found)
