"""The driver for tests of operators: a job on real workers and a real leader, in memory, in virtual time.

    with Driver(job) as d:
        d.send(Split.lines, Line("to be or not to be", 1))
        assert d.read(Count.counts)[-1] == WordCount("be", 2)

`send` returns when everything that follows from the records is processed and committed, so a test needs no waiting. All
that can go wrong in the job comes out of the driver as an exception: wiring mistakes when it is made, errors that stop
the job at the call that caused them, and records that became dead letters at the end, unless the test looked at them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from itertools import count
from types import TracebackType
from typing import Any, Final, Self, TypeVar, overload

from kstate.adapters.avro import AvroCodecs
from kstate.api.declaration import Declaration
from kstate.api.describe import describe
from kstate.api.job import Job
from kstate.api.operator import Operator
from kstate.api.specs import InputSpec, OperatorSpec, OutputSpec, PartialSpec, Topology
from kstate.api.state import ListState, MapState, PartialState, Splittable, ValueState
from kstate.api.streams import Input, Output, Table
from kstate.api.timers import Timer, TimerMap
from kstate.api.topology import resolve
from kstate.api.windows import Window, WindowState
from kstate.clock import Step
from kstate.config import Settings
from kstate.coordinator.core import Rules
from kstate.errors import ConfigError, CorruptStateError, FencedError, KstateError, OperatorError
from kstate.interfaces import FramedCodec, TopicSpec
from kstate.keyspace import SLOTS, KeyRange
from kstate.messages import Order, OrderKind
from kstate.plan import Plan, Shard, TopicPartition, dlq_topic
from kstate.testing.cluster import Blueprint, Cluster, QuickSupervision
from kstate.testing.feeding import Feed
from kstate.testing.inspection import Inspection
from kstate.testing.memory_broker import Record
from kstate.testing.memory_registry import MemoryRegistry
from kstate.testing.named_steps import worker_steps
from kstate.testing.orders import send_order
from kstate.testing.world import Actor, FairDirector, Process, World
from kstate.worker.formats import output_codec
from kstate.worker.stream_frames import split_record_frames, watermark_rows

K = TypeVar("K")
P = TypeVar("P", bound=Splittable)
R = TypeVar("R")
T = TypeVar("T")
V = TypeVar("V")

CRASH_POINTS: Final = {"before_commit": "flushed", "after_commit": "committed"}
"""Words for the two windows that matter most; every other step goes by its own name."""

_NOTICED_S = 0.5
"""By then every worker has looked at the clock."""

_ORDERS_MAX, _ORDER_TURNS = 100, 500
"""An order is repeated until it is answered."""
_TURNS_MAX = 200_000
"""A job that is not at rest after so many steps never will be."""

_logger = logging.getLogger("kstate.testing")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that failed: where it stood, its original bytes, and why; or a timer or window whose handler failed.

    Of these: their key, no value, no topic and the offset −1.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    reason: str
    error: str
    """Name of the exception's class."""
    timer: str | None = None
    """Name of the timer's or window's state; None for a record."""
    deadline: int | None = None
    """Of the timer, or the end of the window, ms since the epoch."""

    def __str__(self) -> str:
        place = f"{self.topic}[{self.partition}]@{self.offset}"
        if self.timer is not None:
            place = f"{self.timer!r} due at {self.deadline} in partition {self.partition}"
        return f"{place} with {self.error}: {self.reason}"


class Driver:
    """Runs one job for one test; use it as a context manager.

    Its clock begins at a fixed instant, 2025-06-15T15:06:40Z (`VirtualClock`), and moves when the engine waits and by
    `advance`. Event times more than `ahead=` beyond it are dead letters: take earlier ones, or advance first.
    Input topics have as many partitions as there are `workers`, output topics have one, so that `read` sees results in
    the order in which they were committed.
    """

    def __init__(self, job: Job, *, workers: int = 1) -> None:
        """Raises ConfigError for mistakes in the job's wiring."""
        self._topology = resolve(job)
        settings = Settings(stream_partitions=workers)
        codecs = _codecs()
        description = describe(self._topology, lambda type_: codecs.value(type_).schema)
        rules = Rules(settings.failure, expected_workers=workers, recovery=settings.recovery)
        self._world = World()
        self._director = _DriverDirector(self._world)
        self._world.director = self._director
        self._log = self._world.log
        self._reasons = _Logger(self._world)
        blueprint = Blueprint(self._topology, description, settings, codecs, rules)
        self._cluster = Cluster(self._world, blueprint, QuickSupervision(), self._reasons)
        self._workers = workers
        self._feed = Feed(self._topology, codecs)
        self._inspection = Inspection(self._cluster, codecs)
        self._read: dict[TopicPartition, int] = {}
        self._orders = count(1)

    def __enter__(self) -> Self:
        """Start leader and workers and wait until every tile runs."""
        self._log.create_topics(list(_external_topics(self._topology, self._workers)))
        self._cluster.start_leader("leader")
        for number in range(self._workers):
            self._cluster.start_worker(_worker_name(number))
        self._settle()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None:
            self.close()
            return
        for spec in self._topology.operators if self._cluster.plan() else ():
            if letters := self._dead_letters(spec):  # they may well be why the test failed
                error.add_note(f"Dead letters of operator {spec.uid!r}: {len(letters)}, the first of {letters[0]}")

    def close(self) -> None:
        """Check that nothing was overlooked: a crash that never came, or dead letters that nobody read."""
        if armed := self._director.armed:
            words = {step: word for word, step in CRASH_POINTS.items()}
            points = ", ".join(f"{name} at {words.get(step, step)!r}" for name, step in armed)
            raise AssertionError(f"the crash of {points} was ordered, but that step was not reached again")
        for spec in self._topology.operators:
            if letters := self._dead_letters(spec):
                owner = self._topology.operator(spec.hop_of[0]) if spec.hop_of else spec
                raise OperatorError(
                    f"Dead letters of operator {spec.uid!r} that nobody looked at: {len(letters)}, the first of "
                    f"{letters[0]}",
                    hint=f"if the test means it, let it look at dead_letters({owner.cls.__name__}).",
                )

    def send(self, to: Input[R] | Table[R], /, *records: R, key: object = None, event_time: int | None = None) -> None:
        """Write records to an input or a table, and run until all that follows from them is committed.

        Without `key` it is the field that the input names by `key=`, or on an internal stream what its writer would
        give; inputs of an `Operator[None]` and those with `rekey=` may go without. `event_time` is the records'
        timestamp in Kafka, by default the present. Raises what stops the job: OperatorError, ConfigError.
        """
        now = self._world.clock.time_ms() if event_time is None else event_time
        spec, given = self._input(to)
        for record in records:
            self._log.report(given.topic, self._feed.message(spec, given, record, key, now, self._plan().partitions))
        self._settle()

    def delete(self, table: Table[Any], /, key: object) -> None:
        """Write a tombstone to a table's topic, and run until all that follows from it is committed."""
        spec, given = self._input(table)
        now = self._world.clock.time_ms()
        self._log.report(given.topic, self._feed.message(spec, given, None, key, now, self._plan().partitions))
        self._settle()

    def read(self, output: Output[R], /) -> list[R]:
        """The committed records of an output since it was read last, in order within each partition."""
        spec = self._output(output)
        values = [record.value or b"" for record in self._new_records(spec.topic)]
        if spec.internal:
            watermarks = set(watermark_rows(values))
            _, values = split_record_frames([v for row, v in enumerate(values) if row not in watermarks])
        codec = output_codec(spec, _codecs())
        if isinstance(codec, FramedCodec):
            codec.learn(values)
        return codec.decode_many(values)

    @overload
    def state(self, state: ValueState[T], /, key: object) -> T: ...
    @overload
    def state(self, state: ListState[T], /, key: object) -> tuple[T, ...]: ...
    @overload
    def state(self, state: MapState[K, V], /, key: object) -> dict[K, V]: ...
    @overload
    def state(self, state: WindowState[T], /, key: object) -> dict[Window, T]: ...
    @overload
    def state(self, state: Timer, /, key: object) -> int | None: ...
    @overload
    def state(self, state: TimerMap[K], /, key: object) -> dict[K, int]: ...
    @overload
    def state(self, state: Table[R], /, key: object) -> R | None: ...
    def state(self, state: Declaration[Any], /, key: object) -> Any:
        """The committed state of a key: a value (its default, or None, when it has none), the elements of a list, the
        entries of a map, the open windows with their values, the deadline of a timer or those of its tags, ms since
        the epoch, or the record of a table. What the watermark has made expire is not there.
        """
        spec = self._spec(state.owner)
        declared = next((each for each in spec.states if each.attribute == state.attribute), None)
        if declared is None or isinstance(declared, PartialSpec):
            raise ConfigError(f"{state} is no state of a key.", hint="partial state is read by partial(…).")
        return self._inspection.state(spec, declared, _codecs().key(spec.key_type).encode(key))

    def partial(self, state: PartialState[P], /) -> P:
        """The committed objects of all key ranges, merged; what `initial=` makes when none was set."""
        spec = self._spec(state.owner)
        declared = next(each for each in spec.states_of(PartialSpec) if each.attribute == state.attribute)
        merged: P = self._inspection.partial(spec, declared)
        return merged

    def dead_letters(self, operator: type[Operator[Any]], /) -> list[DeadLetter]:
        """The records that an operator, or a `rekey=` of its inputs, rejected or failed on, since they were asked for
        last.
        """
        uid = self._spec(operator).uid
        specs = [spec for spec in self._topology.operators if uid in (spec.uid, spec.hop_of and spec.hop_of[0])]
        return [letter for spec in specs for letter in self._dead_letters(spec)]

    def advance(self, by: timedelta, /) -> None:
        """Let time pass for everybody: timers fire, inputs become idle, records sent later have a later timestamp."""
        self._settle()
        self._world.clock.sleep(by.total_seconds())
        noticed = self._world.clock.now + _NOTICED_S
        self._world.run(lambda: self._has_failed() or self._world.clock.now >= noticed, _TURNS_MAX)
        self._settle()

    def crash(self, worker: int = 0, *, at: str = "after_commit") -> None:
        """Kill a worker (0 is the first) when it reaches a step the next time; another incarnation takes over.

        `at` is "before_commit", "after_commit", or the name of any step of the worker; "now" kills it where it stands.
        """
        step = CRASH_POINTS.get(at, at)
        process = self._process(worker)
        if at == "now":
            self._world.crash(process)
            self._settle()
        elif step in worker_steps():
            self._director.armed.append((process.name, step))
        else:
            known = ", ".join(sorted([*CRASH_POINTS, "now", *worker_steps()]))
            raise ConfigError(f"No step of a worker is named {at!r}.", hint=f"use one of {known}.")

    def split(
        self, operator: type[Operator[Any]], /, *, at: float = 0.5, to: int | None = None, partition: int | None = None
    ) -> None:
        """Cut an operator's key ranges in two at a fraction of the key space, in every partition or in one, while it
        runs; the upper parts go to worker `to`, by default to whoever has least.

        Returns when the moves are done. Raises ConfigError with the leader's reason when it refuses.
        """
        for shard in self._shards(operator, partition):
            self._order(Order(self._order_id(), OrderKind.SPLIT, shard, target=self._name(to), at=int(at * SLOTS)))

    def move(
        self,
        operator: type[Operator[Any]],
        /,
        *,
        to: int,
        keys: tuple[float, float] = (0.0, 1.0),
        partition: int | None = None,
    ) -> None:
        """Hand a part of an operator's key space (fractions from and to), in every partition or in one, to a worker.

        As `split`; what the worker has already stays there.
        """
        key_range, target = KeyRange(int(keys[0] * SLOTS), int(keys[1] * SLOTS)), self._process(to).incarnation
        for shard in self._shards(operator, partition):
            there = [t for t in self._plan().tiles if t.shard == shard and t.key_range.overlap(key_range)]
            if any(tile.worker != target for tile in there):
                self._order(Order(self._order_id(), OrderKind.MOVE, shard, key_range, target=self._name(to)))

    def merge(self, operator: type[Operator[Any]], /, *, to: int | None = None, partition: int | None = None) -> None:
        """Bring all key ranges of an operator's partitions, or of one, together again at a worker, by default at the
        one that has most of it. As `split`.
        """
        for shard in self._shards(operator, partition):
            self._order(Order(self._order_id(), OrderKind.MERGE, shard, target=self._name(to)))

    def drain(self, worker: int, /) -> None:
        """Hand everything that a worker has to the others, and give it nothing more. As `split`."""
        self._order(Order(self._order_id(), OrderKind.DRAIN, worker=self._name(worker)))

    def _order(self, order: Order) -> None:
        """Give an order as `kstate split` and its like do, and run until it is carried out."""
        for _ in range(_ORDERS_MAX):
            send_order(self._cluster, order)
            self._world.run(lambda: self._has_failed() or self._is_answered(order), _ORDER_TURNS)
            if self._is_answered(order) or self._has_failed():
                break
        else:
            raise AssertionError(f"Nobody answers {order}: {self._world.told()}")
        if (refusal := self._cluster.refusals.get(order.id)) is not None:
            raise ConfigError(f"{order.kind}: {refusal}.", hint="a driver has as many workers as it is given.")
        self._settle()

    def _order_id(self) -> str:
        return f"order-{next(self._orders)}"

    def _is_answered(self, order: Order) -> bool:
        self._cluster.plan()
        return order.id in self._cluster.verdicts

    def _shards(self, operator: type[Operator[Any]], partition: int | None) -> list[Shard]:
        uid = self._spec(operator).uid
        found = sorted({tile.shard for tile in self._plan().tiles if tile.shard.operator == uid})
        return found if partition is None else [Shard(uid, partition)]

    def _name(self, worker: int | None) -> str | None:
        return None if worker is None else self._process(worker).name

    def _process(self, worker: int) -> Process:
        """The process that runs under a worker's name."""
        if not 0 <= worker < self._workers:
            raise ConfigError(f"There is no worker {worker}: this driver has {self._workers}.", hint="count from 0.")
        return next(process for process in self._world.running() if process.name == _worker_name(worker))

    def _settle(self) -> None:
        """Run until everything is processed, committed and owned; raises what stopped the job."""
        if not self._world.run(lambda: self._has_failed() or self._cluster.settled(), _TURNS_MAX):
            raise AssertionError(f"the job does not come to rest; its last steps:\n{self._world.told()}")
        for process in self._world.processes:
            if (error := self._failure(process)) is not None:
                raise error

    def _has_failed(self) -> bool:
        return any(self._failure(process) is not None for process in self._world.processes)

    def _failure(self, process: Process) -> Exception | None:
        """What a process died of, unless it is part of the game."""
        result = process.result
        if isinstance(result, Exception) and not isinstance(result, FencedError | CorruptStateError):
            return result
        if isinstance(result, int) and result != FencedError.exit_code and result in _ERRORS:
            return _ERRORS[result](self._reasons.errors.get(process, f"{process.name} stopped"))
        return None

    def _dead_letters(self, spec: OperatorSpec) -> list[DeadLetter]:
        return [_dead_letter(record) for record in self._new_records(dlq_topic(self._topology.app, spec.uid))]

    def _new_records(self, topic: str) -> list[Record]:
        found: list[Record] = []
        for partition in range(self._plan().partitions[topic]):
            source = TopicPartition(topic, partition)
            start = self._read.get(source, 0)
            found += [record for record in self._log.records(source) if record.offset >= start]
            self._read[source] = self._log.partition(source).stable_end
        return found

    def _plan(self) -> Plan:
        plan = self._cluster.plan()
        if plan is None:
            raise KstateError("The driver runs only as a context manager.", hint="with Driver(job) as d: …")
        return plan

    def _spec(self, operator: type[Any] | None) -> OperatorSpec:
        for spec in self._topology.operators:
            if spec.cls is operator:
                return spec
        name = getattr(operator, "__qualname__", operator)
        raise ConfigError(f"{name} is no operator of job {self._topology.app!r}.", hint="put its class into the job.")

    def _input(self, declared: Input[Any] | Table[Any]) -> tuple[OperatorSpec, InputSpec]:
        """The input that records are written to, and its operator: that of the hop where there is a `rekey=`."""
        spec = self._spec(declared.owner)
        if (hop := self._topology.hop_of(spec.uid, declared.attribute)) is not None:
            return hop, hop.inputs[0]
        return spec, next(given for given in spec.inputs if given.name == declared.attribute)

    def _output(self, declared: Output[Any]) -> OutputSpec:
        spec = self._spec(declared.owner)
        return next(output for output in spec.outputs if output.name == declared.attribute)


class _DriverDirector(FairDirector):
    """Everything goes well, but for the crashes that the test orders."""

    IDLE_S = 0.05
    """An idle worker looks less often than a real one: fewer steps until an epoch is over."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.armed: list[tuple[str, str]] = []
        """(worker name, step) of crashes to come."""

    def pause_after(self, actor: Actor, step: Step) -> float:
        return self.IDLE_S if step.name == "idle" else super().pause_after(actor, step)

    def stepped(self, actor: Actor) -> None:
        process = actor.process
        order = (process.name, actor.at)
        if order in self.armed and actor is process.main:
            self.armed.remove(order)
            self._world.crash(process)


class _Logger:
    """Passes on to Python's logging, and keeps why a process stopped."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.errors: dict[Process, str] = {}

    def debug(self, event: str, **fields: object) -> None:
        self._tell(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        self._tell(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        self._tell(logging.WARNING, event, fields)

    def error(self, event: str, **fields: object) -> None:
        self._tell(logging.ERROR, event, fields)
        if self._world.current is not None and "reason" in fields:
            self.errors[self._world.current.process] = str(fields["reason"])

    def _tell(self, level: int, event: str, fields: dict[str, object]) -> None:
        if _logger.isEnabledFor(level):
            _logger.log(level, "%s %s", event, " ".join(f"{name}={value}" for name, value in fields.items()))


def _all_errors(base: type[KstateError]) -> list[type[KstateError]]:
    return [base, *(error for child in base.__subclasses__() for error in _all_errors(child))]


_ERRORS: Final = {error.exit_code: error for error in reversed(_all_errors(KstateError))}
"""Exit code → the error that ends a process with it."""


@cache
def _codecs() -> AvroCodecs:
    """Codecs are made once per type and test session."""
    return AvroCodecs(MemoryRegistry())


def _worker_name(number: int) -> str:
    return f"worker-{number}"


def _external_topics(topology: Topology, workers: int) -> list[TopicSpec]:
    read = {given.topic for spec in topology.operators for given in spec.inputs if not given.internal}
    written = {output.topic for spec in topology.operators for output in spec.outputs if not output.internal}
    return [TopicSpec(topic, workers if topic in read else 1) for topic in sorted(read | written)]


def _dead_letter(record: Record) -> DeadLetter:
    headers = {name.removeprefix("kstate."): value.decode() for name, value in record.headers}
    place = headers["topic"], int(headers["partition"]), int(headers["offset"])
    timer, deadline = headers.get("timer"), headers.get("deadline")
    why = headers["reason"], headers["error"]
    return DeadLetter(*place, record.key, record.value, *why, timer, None if deadline is None else int(deadline))
