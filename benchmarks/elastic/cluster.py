"""A job with its coordinators and workers as processes of this machine, its load and its observer.

Nothing here restarts what died: the benchmark is the supervisor, and tells the leader of an exit only where it wants
to. Everything ends with the `with` block, and with this process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import dropwhile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from benchmarks.broker import Broker
from benchmarks.elastic.keys import PARTITIONS
from benchmarks.elastic.observer import ROW
from benchmarks.elastic.watch import PAUSE_S, Watch
from kstate.adapters.kafka import KafkaLog
from kstate.adapters.process import new_incarnation, new_order_id
from kstate.clock import SystemClock
from kstate.config import Settings
from kstate.messages import Order, OrderAnswered, OrderKind, PlanPublished, ProcessExited
from kstate.plan import Plan, reports_topic
from kstate.wire import encode_report

JOB = "benchmarks.elastic.job:job"
START_S = 90.0
ORDER_S = 60.0
REPEAT_S = 1.0
"""How often an order is repeated until it is answered, as the command line does."""
Rows = np.ndarray[Any, np.dtype[Any]]


@dataclass(slots=True)
class Child:
    """A process of the cluster."""

    name: str
    incarnation: str
    process: subprocess.Popen[bytes]
    output: Path
    killed: bool = False

    def has_said(self, text: str) -> bool:
        """Whether that stands in what it has printed."""
        return text in self.output.read_text(errors="replace")

    @property
    def lives(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None


@dataclass(frozen=True, slots=True)
class Carried:
    """An order that was carried out."""

    order: Order
    asked: float
    begun: float
    done: float
    first: Plan
    """The plan that began it, with its moves."""


@dataclass(slots=True)
class Cluster:
    """`settings`: environment of all processes beyond what the cluster itself sets."""

    broker: Broker
    app: str
    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    children: dict[str, Child] = field(default_factory=dict)
    """By name, coordinators and workers."""
    helpers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    watch: Watch = field(init=False)
    _log: KafkaLog = field(init=False)

    def __enter__(self) -> Cluster:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.broker.create_topic(self.input, PARTITIONS)
        self.broker.create_topic(self.output, PARTITIONS)
        self._log = KafkaLog(Settings(bootstrap_servers=self.broker.servers), SystemClock())
        self.rows_file.touch()
        self.helpers.append(self._python("observer", self.output, str(os.getpid()), str(self.rows_file)))
        self.watch = Watch(self.broker.servers, self.app)
        self.watch.check = self._check_children
        self.watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.watch.close()
        for process in [*self.helpers, *(child.process for child in self.children.values())]:
            if process.poll() is None:
                process.kill()
            process.wait()
        self._log.close()

    @property
    def input(self) -> str:
        """Topic of the readings."""
        return f"readings-{self.app}"

    @property
    def output(self) -> str:
        """Topic of the results."""
        return f"means-{self.app}"

    @property
    def rows_file(self) -> Path:
        """What the observer saw."""
        return self.folder / f"{self.app}.rows"

    def rows(self, since: float = 0.0) -> Rows:
        """Results that arrived from that moment on, up to now."""
        size = self.rows_file.stat().st_size // ROW.itemsize
        if not size:
            return np.empty(0, ROW)
        whole = np.memmap(self.rows_file, ROW, "r", shape=(size,))
        return np.array(whole[bisect_left(range(size), since, key=lambda row: whole[row]["arrived"]) :])

    # -- processes

    def coordinator(self, name: str, workers: int) -> Child:
        """Start a candidate for the leadership."""
        return self._kstate(name, ["coordinator", JOB, "--workers", str(workers)])

    def worker(self, name: str) -> Child:
        """Start a worker with an empty data folder."""
        return self._kstate(name, ["worker", JOB, "--name", name])

    def kill(self, name: str) -> float:
        """SIGKILL; returns its moment."""
        child = self.children[name]
        child.killed = True
        at = time.time()
        child.process.send_signal(signal.SIGKILL)
        child.process.wait()
        return at

    def tell_exit(self, name: str) -> None:
        """What a supervisor tells the leader of a process that it does not start again."""
        child = self.children[name]
        code = child.process.poll()
        assert code is not None
        self._report(encode_report(ProcessExited(child.incarnation, code)))

    def load(self, *arguments: object) -> subprocess.Popen[bytes]:
        """Start the load; it ends by itself and prints how far it fell behind."""
        mode, *numbers = map(str, arguments)
        process = self._python("load", self.input, str(os.getpid()), mode, *numbers, stdout=subprocess.PIPE)
        self.helpers.append(process)
        return process

    # -- the job

    @property
    def plan(self) -> Plan:
        """The newest one."""
        assert self.watch.plan is not None
        return self.watch.plan

    def await_running(self, workers: int, seconds: float = START_S) -> float:
        """Until so many live workers own all there is, and run it."""

        def running() -> bool:
            plan = self.watch.plan
            if plan is None or plan.moves or not plan.tiles:
                return False
            live = {child.incarnation for child in self.children.values() if child.lives}
            owners = {tile.worker for tile in plan.tiles}
            return len(owners) >= workers and owners <= live and all(map(self.watch.runs, plan.tiles))

        return self.watch.wait(running, seconds, f"{workers} workers run all tiles of {self.watch.plan}")

    def await_warm(self, seconds: float = START_S) -> float:
        """Until every tile has a standby close to the end of its log."""
        return self.watch.wait(
            lambda: all(map(self.watch.is_warm_elsewhere, self.plan.tiles)), seconds, "warm standbys"
        )

    def await_results(self, count: int, seconds: float, since: float = 0.0) -> float:
        """Until so many results have arrived since a moment."""
        return self.watch.wait(lambda: len(self.rows(since)) >= count, seconds, f"{count} results")

    def order(self, kind: OrderKind, **fields: Any) -> Carried:
        """Ask for something and wait until it is done; RuntimeError when it is refused or takes too long."""
        order = Order(new_order_id(), kind, **fields)
        asked = time.time()
        begun = self._asked(order, asked)
        self.watch.wait(lambda: self._done(order, asked) is not None, ORDER_S, f"{order} is carried out")
        first = next(plan for _, plan in self._plans(asked, order))
        return Carried(order, asked, begun, self._done(order, asked) or 0.0, first)

    def _asked(self, order: Order, asked: float) -> float:
        """Until a plan begins the order; the moment at which that was seen."""
        deadline = asked + ORDER_S
        while time.time() < deadline:
            self._report(encode_report(order))
            repeat_at = time.time() + REPEAT_S
            while time.time() < repeat_at:
                for told in self.watch.since(asked):
                    if isinstance(told.message, PlanPublished) and told.message.order == order.id:
                        return told.at
                    if isinstance(told.message, OrderAnswered) and told.message.order == order.id:
                        raise RuntimeError(f"{order} was answered: {told.message.reason}")
                time.sleep(PAUSE_S)
        raise RuntimeError(f"nobody answered {order} within {ORDER_S:g} s")

    def _done(self, order: Order, asked: float) -> float | None:
        """When a plan without any of its moves came, once one had begun it."""
        return next(
            (at for at, plan in self._plans(asked, order) if all(m.order != order.id for m in plan.moves)), None
        )

    def _plans(self, asked: float, order: Order) -> Iterator[tuple[float, Plan]]:
        """Plans from the one on that begins the order, with the moment at which each was seen."""
        plans = [(told.at, told.message) for told in self.watch.since(asked) if isinstance(told.message, PlanPublished)]
        begun = dropwhile(lambda each: each[1].order != order.id, plans)
        return ((at, message.plan) for at, message in begun)

    def _check_children(self) -> None:
        """RuntimeError when one ended that was not killed: whatever is measured from now on means nothing."""
        for child in self.children.values():
            if not child.killed and not child.lives:
                tail = child.output.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{child.name} ended with exit code {child.process.returncode}:\n{tail}")

    def _report(self, value: bytes) -> None:
        self._log.report(reports_topic(self.app), {"value": value, "partition": 0})

    def _kstate(self, name: str, arguments: list[str]) -> Child:
        incarnation = new_incarnation(self.app, name)
        data = self.folder / "state" / incarnation
        command = [sys.executable, "-m", "kstate", *arguments, "--incarnation", incarnation, "--data", str(data)]
        command += ["--bootstrap", self.broker.servers, "--parent", str(os.getpid())]
        output = self.folder / f"{incarnation}.log"
        with output.open("wb") as sink:
            process = subprocess.Popen(
                command, stdout=sink, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=self._environment()
            )
        child = self.children[name] = Child(name, incarnation, process, output)
        return child

    def _python(self, module: str, *arguments: str, stdout: int | None = None) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"benchmarks.elastic.{module}", self.broker.servers, *arguments]
        return subprocess.Popen(command, stdout=stdout, stdin=subprocess.DEVNULL)

    def _environment(self) -> dict[str, str]:
        topics = {"KSTATE_BENCH_INPUT": self.input, "KSTATE_BENCH_OUTPUT": self.output}
        return {**os.environ, **self.settings, **topics, "KSTATE_BENCH_APP": self.app}
