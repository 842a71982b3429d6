"""A backup as the first release wrote it: restored, read by evolved versions of its job, or refused."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from kstate import Context, Input, Job, Operator, Output, ValueState
from kstate.interfaces import TopicSpec
from kstate.plan import TopicPartition
from tests.support.versions import CODECS, Deployment

EPOCH = timedelta(milliseconds=50)


@dataclass(frozen=True, slots=True)
class Sale:
    item: str
    cents: int


@dataclass(frozen=True, slots=True)
class Basket:
    """As the first release stored it."""

    items: int
    last: str


@dataclass(frozen=True, slots=True)
class Gift:
    """The basket two versions later."""

    last: str
    items: int | None
    wrapped: bool = False
    tags: tuple[str, ...] = ("none",)


@dataclass(frozen=True, slots=True)
class Receipt:
    shop: str
    cents: int
    gift: Gift | None


def released() -> Job:
    """The job of the golden backup, as far as it is stored."""

    class Baskets(Operator[str], uid="baskets"):
        sales = Input(Sale, topic="sales")
        basket = ValueState(Basket)
        cents = ValueState(int, default=0)
        note = ValueState(str)

        @sales.each
        def ignore(self, sale: Sale, ctx: Context) -> None:
            pass

    return Job("shop", [Baskets], epoch=EPOCH)


def evolved(gift: type[Any] = Gift) -> Job:
    """A later version: states evolved, renamed and dropped."""

    class Baskets(Operator[str], uid="baskets"):
        sales = Input(Sale, topic="sales")
        receipts = Output(Receipt, topic="gifts")
        filled = ValueState(gift, name="basket")
        sum = ValueState(int, default=0, name="cents")

        @sales.each
        def add(self, sale: Sale, ctx: Context) -> None:
            self.sum.set(self.sum.get() + sale.cents)
            self.receipts.emit(Receipt(self.key, self.sum.get(), self.filled.get()))

    return Job("shop", [Baskets], epoch=EPOCH, dropped=["baskets.note"])


def golden_log() -> Deployment:
    """Control topic and backup log as the first release wrote them, and the input it read."""
    folder = Path(__file__).parents[1] / "golden"
    at = Deployment(["sales", "receipts", "gifts"], partitions=1, workers=1)
    log = at.world.log
    log.create_topics([TopicSpec(f"shop.{name}", 1) for name in ("control", "baskets.backup", "baskets.dlq")])
    for topic, lines in (
        ("control", (folder / "job-control-v1.jsonl").read_bytes().splitlines()),
        ("baskets.backup", list(map(bytes.fromhex, (folder / "job-backup-v1.hex").read_text().splitlines()))),
    ):
        for line in lines:
            log.partition(TopicPartition(f"shop.{topic}", 0)).append({"value": line, "partition": 0}, 0, None)
    for number in range(6):  # the progress of the markers lies behind them
        at.send("sales", "north", Sale(f"old {number}", 1_000))
    return at


def test_a_backup_of_format_1_is_restored_and_read_with_evolved_schemas() -> None:
    """This release restores it into its store and goes on from there; a later version of the job reads it as its own
    types.
    """
    at = golden_log()
    same = at.version(released())
    at.start(same, "leader", "worker-1")
    at.settle()
    assert CODECS.value(Basket).decode((at.stored("baskets", "basket", "north") or (0, b""))[1]) == Basket(2, "plum")
    assert at.stored("baskets", "basket", "south") is None
    at.stop("leader", "worker-1")
    at.start(at.version(evolved()), "leader", "worker-2")  # its store is empty: all comes from the backup
    for key in ("north", "south", "öst"):
        at.send("sales", key, Sale("new", 1))
    at.settle()
    assert set(at.read("gifts", Receipt)) == {
        Receipt("north", 166, Gift("plum", 2)),
        Receipt("south", 381, None),
        Receipt("öst", -4, Gift("größe", 1)),
    }


def test_a_backup_of_format_1_needs_its_own_schemas_first() -> None:
    """Its plan does not say what each state was written with: another schema is refused, with the mend."""
    at = golden_log()
    at.start(at.version(evolved()), "leader", "worker-1")
    at.until(lambda: at.result("leader") is not None, "refusal")
    assert "of an older release, does not say what was stored; start the job once with the old" in str(
        at.result("leader")
    )
    at.stop("worker-1")


def test_state_that_the_new_schema_cannot_read_is_refused_with_both() -> None:
    """Before anything is changed: both texts and the field are named."""

    @dataclass(frozen=True, slots=True)
    class Lossy:
        items: int
        last: bytes
        price: int

    at = golden_log()
    at.start(at.version(released()), "leader", "worker-1")
    at.settle()
    at.stop("leader", "worker-1")
    before = at.plan()
    at.start(at.version(evolved(Lossy)), "leader", "worker-1")
    at.until(lambda: at.result("leader") is not None, "refusal")
    for text in (
        CODECS.value(Lossy).schema,
        CODECS.value(Basket).schema,
        "state 'basket' of operator 'baskets'",
        "field 'price' is new and has no default",
    ):
        assert text in str(at.result("leader"))
    assert at.plan() == before
    at.stop("worker-1")
