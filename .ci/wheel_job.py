"""A user's first project, on nothing but the installed wheel: schema, operator, broker, `kstate run`, the right result.

Run in an empty folder with the Python of an environment that has only the wheel. Exit code 1 when anything is wrong.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from kstate.adapters.embedded_broker import EmbeddedBroker

SCHEMAS = {
    "visit": [("user", "string"), ("page", "string")],
    "visits": [("user", "string"), ("n", "long")],
}

OPERATORS = """
from records import Visit, Visits

from kstate import Context, Input, Job, Operator, Output, ValueState


class CountVisits(Operator[str], uid="count-visits"):
    visits = Input(Visit, topic="visits", key="user")
    totals = Output(Visits, topic="totals")
    n = ValueState(int, default=0)

    @visits.each
    def count(self, visit: Visit, ctx: Context) -> None:
        self.n.set(self.n.get() + 1)
        self.totals.emit(Visits(self.key, self.n.get()))


job = Job("wheel", [CountVisits])
"""

USERS, ROUNDS = 7, 300


def write_project() -> None:
    """Schemas, record classes generated from them, and one operator."""
    Path("schemas").mkdir()
    for name, fields in SCHEMAS.items():
        record = {
            "type": "record",
            "name": name.capitalize(),
            "fields": [{"name": field, "type": kind} for field, kind in fields],
        }
        Path("schemas", f"{name}.avsc").write_text(json.dumps(record))
    Path("visits_job.py").write_text(OPERATORS)
    kstate("schema", "generate", "--out", "records.py")
    kstate("check", "visits_job:job")


def kstate(*arguments: str) -> None:
    """Run the installed command."""
    command = [str(Path(sys.executable).parent / "kstate"), *arguments]
    subprocess.run(command, check=True, timeout=120)


def fill(servers: str) -> None:
    """Topics, and visits of a few users in turn, placed as Java producers place them."""
    admin = AdminClient({"bootstrap.servers": servers})
    for future in admin.create_topics([NewTopic("visits", 3, 1), NewTopic("totals", 3, 1)]).values():
        future.result()
    producer = Producer({"bootstrap.servers": servers, "partitioner": "murmur2_random", "enable.idempotence": True})
    for number in range(USERS * ROUNDS):
        user = f"user-{number % USERS}".encode()
        producer.produce("visits", bytes([2 * len(user)]) + user + b"\x02p", user)
    producer.flush(30)


def totals(servers: str) -> dict[str, list[int]]:
    """Every committed total, per user in order."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "check", "auto.offset.reset": "earliest"})
    consumer.subscribe(["totals"])
    found: dict[str, list[int]] = {}
    for message in consumer.consume(USERS * ROUNDS + 1, 15.0):
        value = message.value() or b""
        length = value[0] // 2
        zigzag = sum((byte & 0x7F) << (7 * place) for place, byte in enumerate(value[1 + length :]))
        found.setdefault(value[1 : 1 + length].decode(), []).append(zigzag // 2)
    consumer.close()
    return found


def main() -> int:
    """0 when the job counted right."""
    write_project()
    with EmbeddedBroker() as broker:
        servers = broker.bootstrap_servers
        fill(servers)
        kstate("run", "visits_job:job", "--workers", "2", "--until-end", "--bootstrap", servers, "--data", "state")
        found = totals(servers)
    expected = {f"user-{i}": list(range(1, ROUNDS + 1)) for i in range(USERS)}
    print(f"wheel: {sum(map(len, found.values()))} totals of {len(found)} users, as expected: {found == expected}")
    return 0 if found == expected else 1


if __name__ == "__main__":
    sys.exit(main())
