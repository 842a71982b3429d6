"""The job of the golden backups from format 2 on; `python -m tests.golden.released_job` writes what is missing.

`job-control-vN.jsonl` is its control topic, `job-backup-vN.hex` its backup log, a frame a line, as release format N
wrote them. They are never rewritten. Those of format 1 come from the first release, whose job had only values.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kstate import Context, Input, Job, ListState, MapState, Operator, Timer, TimerMap, ValueState
from kstate.plan import TopicPartition
from kstate.testing import Driver

FOLDER = Path(__file__).parent
FORMAT = 2
FIRST_MS = 1_750_000_000_000
"""Event time of the first sale."""


@dataclass(frozen=True, slots=True)
class Sale:
    """A sale: when, what, for how much."""

    item: str
    cents: int
    at: int


@dataclass(frozen=True, slots=True)
class Basket:
    """What a customer has."""

    items: int
    last: str


class Baskets(Operator[str], uid="baskets"):
    """A state of every kind that is kept per key."""

    sales = Input(Sale, topic="sales", event_time="at")
    basket = ValueState(Basket)
    cents = ValueState(int, default=0)
    note = ValueState(str)
    trail = ListState(Basket)
    prices = MapState(str, int)
    idle = Timer()
    expiry = TimerMap(str)

    @sales.each
    def add(self, sale: Sale, ctx: Context) -> None:
        """Change them all."""
        before = self.basket.get() or Basket(0, "")
        after = Basket(before.items + 1, sale.item)
        self.basket.set(after)
        self.cents.set(self.cents.get() + sale.cents)
        self.note.set(f"{sale.item} for {sale.cents}")
        self.trail.append(after)
        self.prices[sale.item] = sale.cents
        self.idle.set(at=sale.at + 3_600_000)
        self.expiry.set(sale.item, at=sale.at + 1_800_000)
        if sale.item == "void":
            self.basket.clear()

    @idle.fires
    def went(self, ctx: Context) -> None:
        """Not while this is written."""

    @expiry.fires
    def expired(self, tag: str, ctx: Context) -> None:
        """Not while this is written."""


SALES = (
    ("north", "apple", 120),
    ("south", "pear", 80),
    ("south", "fig", 300),
    ("north", "plum", 45),
    ("south", "void", 0),
    ("öst", "größe", -5),
)


def main() -> None:
    """Write what is not there yet."""
    with Driver(Job("shop", [Baskets])) as d:
        for number, (key, item, cents) in enumerate(SALES):
            d.send(Baskets.sales, Sale(item, cents, FIRST_MS + number), key=key)
        log = d._log
        control = [record.value or b"" for record in log.records(TopicPartition("shop.control", 0))]
        backup = [record.value or b"" for record in log.records(TopicPartition("shop.baskets.backup", 0))]
    for name, lines in (
        (f"job-control-v{FORMAT}.jsonl", [line.decode() for line in control]),
        (f"job-backup-v{FORMAT}.hex", [frame.hex() for frame in backup]),
    ):
        if not (FOLDER / name).exists():
            (FOLDER / name).write_text("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main()
