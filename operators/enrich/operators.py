"""A stream-table join: orders, keyed by their own id, meet the table of customers."""

from __future__ import annotations

from datetime import timedelta

from kstate import Context, Input, ListState, Operator, Output, Table, Timer
from operators.records import Customer, EnrichedOrder, Order

PATIENCE = timedelta(minutes=1)


class Enrich(Operator[str], uid="enrich"):
    """Adds the customer to each order; an order that is earlier than its customer waits for a minute."""

    orders = Input(Order, topic="orders", rekey="customer", event_time="ts", lateness=timedelta(seconds=5))
    customers = Table(Customer, topic="customers")
    enriched = Output(EnrichedOrder, topic="enriched-orders")
    waiting = ListState(Order)
    patience = Timer()

    @orders.each
    def join(self, order: Order, ctx: Context) -> None:
        customer = self.customers.get()
        if customer is not None:
            self._emit(order, customer)
            return
        self.waiting.append(order)
        if self.patience.get() is None:
            self.patience.set(after=PATIENCE)

    @customers.changed
    def arrive(self, customer: Customer | None, ctx: Context) -> None:
        if customer is not None:
            self._release(customer)

    @patience.fires
    def give_up(self, ctx: Context) -> None:
        self._release(None)

    def _release(self, customer: Customer | None) -> None:
        """All orders of this customer that wait, in order."""
        for order in self.waiting:
            self._emit(order, customer)
        self.waiting.clear()
        self.patience.cancel()

    def _emit(self, order: Order, customer: Customer | None) -> None:
        name, city = (None, None) if customer is None else (customer.name, customer.city)
        self.enriched.emit(EnrichedOrder(order.id, self.key, order.cents, name, city), event_time=order.ts)
