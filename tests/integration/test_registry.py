"""Framed topics on a real broker, with a registry that is away for a while, and with records that do not fit."""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from kstate.testing.real_kafka import KafkaUnderTest
from tests.support.cluster import Cluster, Process, cluster
from tests.support.framed_jobs import V1, V2, Shop
from tests.support.registry_server import Schemas, registry_server
from tests.support.topics import create_topics, produce

pytestmark = pytest.mark.integration

CONFIG = 2
JOB = "tests.support.framed_jobs:job"
PARTITIONS = 2
WORKERS = 2


@pytest.fixture
def made(kstate_kafka: KafkaUnderTest, tmp_path: Path) -> Iterator[Cluster]:
    """The job's topics, empty."""
    with cluster(kstate_kafka.bootstrap_servers, "framed", tmp_path) as made:
        create_topics(made.bootstrap_servers, {made.topic("orders"): PARTITIONS, made.topic("bills"): PARTITIONS})
        yield made


def run(made: Cluster, registry: str, *arguments: str) -> Process:
    """`kstate run` of the framed job."""
    made.settings["KSTATE_REGISTRY"] = registry
    return made.command("run", "run", JOB, "--workers", str(WORKERS), *arguments)


def shown(made: Cluster) -> str:
    """Everything that the processes printed, on one line."""
    return " ".join(" ".join(process.text for process in made.processes).split())


def expected(orders: list[tuple[str, int, float, int]]) -> dict[str, list[tuple[int, int, float]]]:
    """Customer → order, number and total of each bill, in order."""
    bills: dict[str, list[tuple[int, int, float]]] = defaultdict(list)
    for customer, order, price, count in orders:
        total = (bills[customer][-1][2] if bills[customer] else 0.0) + price * count
        bills[customer].append((order, len(bills[customer]) + 1, total))
    return bills


def written(made: Cluster, shop: Shop) -> dict[str, list[tuple[int, int, float]]]:
    """The same, of what stands in the topic; its keys are bare."""
    bills: dict[str, list[tuple[int, int, float]]] = defaultdict(list)
    for seen in made.records(made.topic("bills")):
        bill = shop.read(seen.value or b"")
        assert seen.key == bill["customer"].encode()
        bills[bill["customer"]].append((bill["order"], bill["n"], bill["total"]))
    return bills


def test_an_evolving_topic_is_read_and_a_registry_that_is_away_is_waited_for(made: Cluster) -> None:
    """Version 1, then, while the registry is down, version 2: the job says what it waits for, and nothing is lost."""
    dice, schemas = random.Random(5), Schemas()
    shop = Shop(schemas)
    orders = [(f"customer-{dice.randrange(40)}", number, float(dice.randrange(100)), 1) for number in range(400)]
    later = [
        (f"customer-{dice.randrange(60)}", number, float(dice.randrange(100)), number % 7) for number in range(400, 800)
    ]
    early = [(shop.key(who), shop.order(V1, id=number, price=price)) for who, number, price, _ in orders]
    with registry_server(schemas) as server:
        port, url = server.port, server.url.replace("//", "//me:secret@")
        server.user = "me:secret"
        produce(made.bootstrap_servers, made.topic("orders"), early)
        run(made, url)
        made.await_records(made.topic("bills"), len(orders))
    assert written(made, shop) == expected(orders)
    late = [(shop.key(who), shop.order(V2, id=n, price=price, count=count, note="x")) for who, n, price, count in later]
    produce(made.bootstrap_servers, made.topic("orders"), [*late, *_misfits(shop)])
    made.await_true(lambda: "registry-away" in shown(made), 20, "waiting for the registry")
    time.sleep(1.0)  # several tries
    assert len(made.records(made.topic("bills"))) == len(orders)
    with registry_server(schemas, port) as server:
        server.user = "me:secret"
        made.await_records(made.topic("bills"), len(orders) + len(later))
        made.await_records(made.internal("bills.dlq"), 3)
        assert max(Counter(server.requests).values()) <= WORKERS  # once per id and worker
    assert written(made, shop) == expected(orders + later)
    _check_letters(made, shop)
    assert "secret" not in shown(made)


def _misfits(shop: Shop) -> list[tuple[bytes, bytes]]:
    return [
        (shop.key("customer-1"), b"\2\0\0\0\0\0\0\0\0"),
        (shop.key("customer-2"), b"\0\0\0\0\x63\2"),
        (b"customer-3", shop.order(V1, id=1, price=1.0)),
    ]


def _check_letters(made: Cluster, shop: Shop) -> None:
    letters = {seen.key: seen for seen in made.records(made.internal("bills.dlq"))}
    reasons = ('declare format="raw"', "Schema id 99", 'declare key_format="raw"')
    for (key, value), reason in zip(_misfits(shop), reasons, strict=True):
        assert letters[key].value == value
        assert reason in letters[key].header["kstate.reason"]


def test_an_output_that_the_registry_refuses_stops_the_job_before_anything_is_produced(made: Cluster) -> None:
    """With the registry's own message."""
    schemas = Schemas()
    shop = Shop(schemas)
    fields = [{"name": "customer", "type": "long"}]
    schemas.add(f"{made.topic('bills')}-value", {"type": "record", "name": "Bill", "fields": fields})
    produce(made.bootstrap_servers, made.topic("orders"), [(shop.key("c"), shop.order(V1, id=1, price=1.0))])
    with registry_server(schemas) as server:
        assert run(made, server.url).wait(30) == CONFIG, made.report()
    for words in ("TYPE_MISMATCH", f"'{made.topic('bills')}-value'", "compatible"):
        assert words in shown(made), made.report()
    assert made.records(made.topic("bills")) == []


def test_a_schema_that_the_job_cannot_read_stops_it_and_nothing_of_it_is_dropped(made: Cluster, tmp_path: Path) -> None:
    """It is no fault of single records: exit code 2, both schemas named, no dead letter. The registry is a folder."""
    schemas = Schemas()
    shop = Shop(schemas)
    good = (shop.key("c"), shop.order(V1, id=1, price=1.0))
    schemas.subjects.clear()  # a registry that checks nothing
    fields = [{"name": "id", "type": "string"}, {"name": "price", "type": "double"}]
    unreadable = (shop.key("c"), shop.order({"type": "record", "name": "Order", "fields": fields}, id="1", price=1.0))
    produce(made.bootstrap_servers, made.topic("orders"), [good, unreadable])
    folder = tmp_path / "registry"
    folder.mkdir()
    for number, content in enumerate(schemas.texts, 1):
        folder.joinpath(f"{number}.avsc").write_text(content)
    assert run(made, str(folder)).wait(30) == CONFIG, made.report()
    for words in ("Schema 3 of subject", "'id' was string and is long now", str(folder)):
        assert words in shown(made), made.report()
    assert made.records(made.internal("bills.dlq")) == []
