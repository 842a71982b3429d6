"""A job that is deployed version by version on one log: workers and leaders of several builds, in virtual time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from kstate import Job
from kstate.adapters.avro import AvroCodecs
from kstate.api.describe import describe
from kstate.api.topology import resolve
from kstate.config import FailureSettings, Settings
from kstate.coordinator.core import Rules
from kstate.interfaces import TopicSpec
from kstate.keyspace import partition_of, slot_of
from kstate.messages import JobHalted, PlanPublished
from kstate.plan import Plan, Shard, TopicPartition, control_topic
from kstate.state.layout import key_suffix, shard_prefix
from kstate.state.values import split_value
from kstate.testing.cluster import Blueprint, Cluster, QuickSupervision
from kstate.testing.world import Process, World
from kstate.wire import decode_control

CODECS = AvroCodecs()
FAILURE = FailureSettings(successor_wait_ms=800, restart_wait_ms=1_500)


class Told:
    """An event log that keeps what people are told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, event: str, **fields: object) -> None:
        self.lines.append(f"{event} {fields.get('reason', '')}")

    debug = warning = error = info


class Deployed(Cluster):
    """The processes of one version, on the world, stores and numbers of all."""

    def __init__(self, job: Job, of: Deployment) -> None:
        topology = resolve(job)
        description = describe(topology, lambda type_: CODECS.value(type_).schema)
        settings = Settings(stream_partitions=of.partitions, failure=FAILURE)
        rules = Rules(FAILURE, expected_workers=of.workers, settle_ms=200, start_wait_ms=1_000)
        super().__init__(
            of.world, Blueprint(topology, description, settings, CODECS, rules), QuickSupervision(), of.told
        )
        self.build = description.build


@dataclass
class Deployment:
    """One log, and whoever runs on it. Every plan is watched: tiles are granted to members of its own build only."""

    topics: Sequence[str]
    partitions: int = 2
    workers: int = 2
    world: World = field(default_factory=World)
    told: Told = field(default_factory=Told)
    plans: list[Plan] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.world.log.create_topics([TopicSpec(topic, self.partitions) for topic in self.topics])
        self._versions: list[Deployed] = []
        self._running: dict[str, tuple[Deployed, Process]] = {}

    # -- processes

    def version(self, job: Job) -> Deployed:
        """A version of the job, of which nothing runs yet."""
        made = Deployed(job, self)
        if self._versions:
            first = self._versions[0]
            made.workers, made.live, made.stores, made._starts = first.workers, first.live, first.stores, first._starts
        self._versions.append(made)
        return made

    def start(self, version: Deployed, *names: str) -> None:
        """Start processes of a version: `leader…` a leader, anything else a worker."""
        for name in names:
            start = version.start_leader if name.startswith("leader") else version.start_worker
            self._running[name] = (version, start(name))

    def stop(self, *names: str) -> None:
        """SIGTERM, and wait until they are gone; nobody starts them again."""
        for name in names:
            version, process = self._running[name]
            process = next(p for p in reversed(self.world.processes) if p.name == name and p.role == process.role)
            actor: Any = version._leaders.get(process) or version.workers[process]
            actor.stop()
            self.until(partial(self._gone, name), f"the end of {name}")

    def crash(self, name: str) -> None:
        """Kill -9; a supervisor starts the same version again."""
        self.world.crash(next(p for p in self.world.running() if p.name == name))

    def result(self, name: str) -> Any:
        """How the last process of this name ended."""
        return next(p for p in reversed(self.world.processes) if p.name == name).result

    def _gone(self, name: str) -> bool:
        return all(process.name != name for process in self.world.running())

    # -- time

    def until(self, condition: Any, what: str, turns: int = 100_000) -> None:
        """Let everybody go on until a condition holds."""
        assert self.world.run(condition, turns), f"no {what}\n{self.world.told()}\n" + "\n".join(self.told.lines)
        self._watch()

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.world.clock.now + seconds
        self.until(lambda: self.world.clock.now >= end, f"{seconds} s")

    def settle(self) -> None:
        """Until all that was sent is processed and every tile runs where the plan says."""
        self.until(self._versions[-1].settled, "rest")

    def plan(self) -> Plan:
        self._watch()
        return self.plans[-1]

    def owners(self) -> Counter[str]:
        """Names of workers → how many tiles they own."""
        plan = self.plan()
        names = {process.incarnation: process.name for process in self.world.processes}
        return Counter(names.get(tile.worker or "", "nobody") for tile in plan.tiles)

    def halts(self) -> list[str]:
        return [m.reason for m in self._control() if isinstance(m, JobHalted)]

    def reasons(self) -> list[str]:
        """Why each plan was made."""
        return [m.reason for m in self._control() if isinstance(m, PlanPublished)]

    def _control(self) -> list[Any]:
        topic = control_topic(self._versions[0].blueprint.topology.app)
        if topic not in self.world.log.broker.topics:
            return []
        return [decode_control(r.value or b"") for r in self.world.log.records(TopicPartition(topic, 0))]

    def _watch(self) -> None:
        """What holds in every plan, whatever is deployed."""
        plans = [m.plan for m in self._control() if isinstance(m, PlanPublished)]
        for plan in plans[len(self.plans) :]:
            for tile in plan.tiles:
                member = plan.member(tile.worker or "")
                if tile.grant == plan.version and tile.worker is not None:
                    assert member is not None
                    assert member.build == plan.build, f"plan {plan.version} grants {tile} to build {member.build}"
        self.plans = plans

    # -- records

    def send(self, topic: str, key: str, record: Any) -> None:
        """A record for an input."""
        data, value = key.encode(), CODECS.value(type(record)).encode(record)
        partition = partition_of(data, self.partitions)
        self.world.log.report(topic, {"key": data, "value": value, "partition": partition})

    def read(self, topic: str, type_: Any) -> list[Any]:
        """All committed records of an output."""
        records = [
            record
            for partition in range(self.partitions)
            for record in self.world.log.records(TopicPartition(topic, partition))
        ]
        return CODECS.value(type_).decode_many([record.value or b"" for record in records])

    def stored(self, uid: str, state: str, key: str) -> tuple[int, bytes] | None:
        """The stored value of a key in its owner's local store: schema id and payload."""
        plan, data = self.plan(), key.encode()
        shard, slot = Shard(uid, partition_of(data, self.partitions)), slot_of(data)
        owner = next(t.worker for t in plan.tiles if t.shard == shard and slot in t.key_range)
        name = next(p.name for p in self.world.processes if p.incarnation == owner)
        prefix = shard_prefix(plan.registry.operators[uid], shard.partition)
        stored_key = prefix + key_suffix(slot, plan.registry.states[uid, state], data)
        (found,) = self._versions[0].stores[name].get_many([stored_key])
        return None if found is None else (split_value(found).schema_id, split_value(found).payload)
