"""A backup as the first release wrote it: restored, read by evolved versions of its job, or refused."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from kstate import Context, Input, Job, ListState, MapState, Operator, Output, Timer, TimerMap, ValueState
from kstate.interfaces import TopicSpec
from kstate.plan import TopicPartition
from tests.golden import released_job
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


def golden_log(number: int = 1) -> Deployment:
    """Control topic and backup log as a release of this format wrote them, and the input it read."""
    folder = Path(__file__).parents[1] / "golden"
    at = Deployment(["sales", "receipts", "gifts", "stock"], partitions=1, workers=1)
    log = at.world.log
    log.create_topics([TopicSpec(f"shop.{name}", 1) for name in ("control", "baskets.backup", "baskets.dlq")])
    for topic, lines in (
        ("control", (folder / f"job-control-v{number}.jsonl").read_bytes().splitlines()),
        ("baskets.backup", list(map(bytes.fromhex, (folder / f"job-backup-v{number}.hex").read_text().splitlines()))),
    ):
        for line in lines:
            log.partition(TopicPartition(f"shop.{topic}", 0)).append({"value": line, "partition": 0}, 0, None)
    for old in range(6):  # the progress of the markers lies behind them
        at.send("sales", "north", Sale(f"old {old}", 1_000))
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


@dataclass(frozen=True, slots=True)
class Stock:
    """All that is kept of a key, in one record."""

    shop: str
    trail: tuple[Gift, ...] = ()
    prices: tuple[str, ...] = ()
    fired: str = ""


class Later(Operator[str], uid="baskets"):
    """The job of format 2, a version later: every kind of state evolved, two dropped."""

    sales = Input(released_job.Sale, topic="sales", event_time="at")
    stock = Output(Stock, topic="stock")
    basket = ValueState(Gift)
    trail = ListState(Gift)
    by_item = MapState(str, int, name="prices")
    idle = Timer()
    over = TimerMap(str, name="expiry")

    @sales.each
    def show(self, sale: released_job.Sale, ctx: Context) -> None:
        """What is there, without changing it."""
        prices = tuple(f"{item}={cents}" for item, cents in self.by_item.items())
        self.stock.emit(Stock(self.key, self.trail.get(), prices))

    @idle.fires
    def went(self, ctx: Context) -> None:
        """A deadline that the released version set."""
        self.stock.emit(Stock(self.key, fired=f"idle {ctx.event_time - released_job.FIRST_MS}"))

    @over.fires
    def expired(self, tag: str, ctx: Context) -> None:
        """Another one, with its tag."""
        self.stock.emit(Stock(self.key, fired=f"{tag} {ctx.event_time - released_job.FIRST_MS}"))


def test_a_backup_of_format_2_is_restored_and_read_with_evolved_schemas() -> None:
    """Values, lists, maps and deadlines; at once under a later version, because its plan says what was stored."""
    at = golden_log(2)
    job = Job("shop", [Later], epoch=EPOCH, dropped=["baskets.note", "baskets.cents"])
    at.start(at.version(job), "leader", "worker-1")
    at.send("sales", "south", released_job.Sale("", 0, released_job.FIRST_MS + 10))
    at.settle()
    trail = (Gift("pear", 1), Gift("fig", 2), Gift("void", 3))
    assert at.read("stock", Stock) == [Stock("south", trail, ("fig=300", "pear=80", "void=0"))]
    at.send("sales", "east", released_job.Sale("", 0, released_job.FIRST_MS + 3_600_003))
    at.settle()
    fired = {(stock.shop, stock.fired) for stock in at.read("stock", Stock) if stock.fired}
    assert fired == {
        *(("north", "apple 1800000"), ("north", "plum 1800003"), ("öst", "größe 1800005")),
        *(("south", "pear 1800001"), ("south", "fig 1800002"), ("south", "void 1800004")),
        ("north", "idle 3600003"),
    }
