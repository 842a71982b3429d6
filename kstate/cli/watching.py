"""Looking on: what stands in the control topic and what is reported, without any part in the job.

A record that stood there when the watch began is as old as its timestamp says; one that comes while it goes on is new
when it comes, whatever the clock of its sender shows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

import typer

from kstate.cli.jobs import load_job
from kstate.clock import Clock, Step, Steps
from kstate.coordinator.observed import Observed, control_read, report_read
from kstate.coordinator.overview import Surroundings, input_partitions, overview
from kstate.coordinator.status import Overview
from kstate.errors import ConfigError, DataLossError, DecodeError, RetryableError
from kstate.interfaces import Log
from kstate.messages import Control, Report
from kstate.plan import TopicPartition, control_topic, reports_topic
from kstate.wire import decode_control, decode_report

AppArgument = Annotated[
    str, typer.Argument(metavar="JOB", help="The job, as module:attribute, or the name of its application.")
]

WATCH = Step("watching", wait=0.05)
REPORTS_BACK_MS = 5_000
"""Reports are read from so long ago on: some heartbeats of everybody who lives."""
POLL_RECORDS = 1_000


@dataclass(frozen=True, slots=True)
class WatchEdges:
    """Kafka and time."""

    log: Log
    clock: Clock


class Watch:
    """Follows one job's control topic and reports; `observed` is what it has seen so far."""

    def __init__(self, edges: WatchEdges, app: str) -> None:
        self.app = app
        self.observed = Observed()
        self._edges = edges
        self._control = _Tail(edges, TopicPartition(control_topic(app), 0))
        self._reports = _Tail(edges, TopicPartition(reports_topic(app), 0))

    def begin(self) -> Steps[None]:
        """Read all that stands in control, and the reports of the last seconds; may be begun again after an error.

        Raises ConfigError when the job never ran here, RetryableError when the broker does not answer.
        """
        self.observed = Observed()
        check_ran(self._edges.log, self.app)
        self._control.start(None)
        self._reports.start(self._edges.clock.time_ms() - REPORTS_BACK_MS)
        while not (self._control.caught_up and self._reports.caught_up):
            self.look()
            yield WATCH

    def look(self) -> list[Control]:
        """Take in what came since; the new messages of the control topic."""
        messages: list[Control] = []
        for at_ms, value in self._control.poll():
            message = _decoded(value, self._control.place)
            self.observed = control_read(self.observed, message, at_ms)
            messages.append(message)
        for at_ms, value in self._reports.poll():
            if (report := _report(value)) is not None:
                self.observed = report_read(self.observed, report, at_ms)
        return messages

    def is_anyone_unheard(self, silence_max_ms: int) -> bool:
        """Whether the leader, or a member of the newest plan, is silent as far as was read."""
        shown = overview(self.app, self.observed, Surroundings({}, self._edges.clock.time_ms(), silence_max_ms))
        leading = shown.leader is not None and shown.leader.state == "leading"
        return not leading or any(worker.state == "silent" for worker in shown.workers)

    def overview(self, silence_max_ms: int) -> Overview:
        """How the job stands now. Asks for the ends of the inputs: raises RetryableError."""
        plan = self.observed.control.plan
        ends: Mapping[TopicPartition, int] = {}
        if plan is not None:
            with suppress(ConfigError):  # one topic is gone, or must not be read: lags are not known then
                ends = self._edges.log.end_offsets(sorted(input_partitions(plan)), committed=False)
        around = Surroundings(ends, self._edges.clock.time_ms(), silence_max_ms)
        return overview(self.app, self.observed, around)

    def close(self) -> None:
        """Give the readers up."""
        self._control.close()
        self._reports.close()


def app_of(job: str) -> str:
    """The application that JOB names; a plain name needs none of the job's code. Raises ConfigError."""
    return load_job(job).app if ":" in job else job


def quiet() -> None:
    """What the Kafka client says in its log stands in our errors; commands that people read print nothing else."""
    logging.getLogger().addHandler(logging.NullHandler())


def patiently(protocol: Callable[[], Steps[None]], clock: Clock, seconds: float) -> Steps[None]:
    """Repeat a protocol from its start while the broker does not answer; its last RetryableError when time is over."""
    deadline = clock.monotonic() + seconds
    while True:
        try:
            yield from protocol()
        except RetryableError:
            if clock.monotonic() >= deadline:
                raise
            yield WATCH
        else:
            return


def check_ran(log: Log, app: str) -> None:
    """ConfigError when a job has no control topic and no reports here."""
    topics = [control_topic(app), reports_topic(app)]
    found = log.partitions(topics)
    if missing := [topic for topic in topics if found[topic] is None]:
        raise ConfigError(
            f"Job '{app}' never ran on this cluster: there is no topic {' and no topic '.join(missing)}.",
            hint="start it with `kstate run`, or name the cluster that it runs on: --bootstrap HOST:PORT.",
        )


class _Tail:
    """The records of a partition from some place on, each with the time at which it is taken to have been written."""

    def __init__(self, edges: WatchEdges, place: TopicPartition) -> None:
        self.place = place
        self._edges = edges
        self._reader = edges.log.reader()
        self._position = 0
        self._known_end = 0
        """What lies before stood there when the watch began."""
        self._lost = False
        """Where it stood there is nothing any more; it has no other place yet."""

    def start(self, since_ms: int | None) -> None:
        """From a time of the wall clock on, or, without one, from the start of the log."""
        log, place = self._edges.log, self.place
        self._known_end = log.end_offsets([place], committed=True)[place]
        if since_ms is None:
            self._position = log.start_offsets([place])[place]
        else:
            self._position = log.offsets_at([place], since_ms)[place]
        self._reader.assign({place: self._position})

    @property
    def caught_up(self) -> bool:
        """Everything that stood there when the watch began is read."""
        return self._position >= self._known_end

    def poll(self) -> Iterator[tuple[int, bytes]]:
        """Times and values of what can be read now. Raises RetryableError."""
        if self._lost:
            self._start_over()
        try:
            batches = self._reader.poll(POLL_RECORDS, 0.0)
        except DataLossError:  # trimmed, or expired, since we looked last: what is still needed stands behind it
            self._lost = True
            self._start_over()
            return
        now_ms = self._edges.clock.time_ms()
        for batch in batches:
            self._position = batch.next_offset
            for offset, value, stamp in zip(batch.offsets, batch.values, batch.timestamps, strict=True):
                yield (min(stamp, now_ms) if offset < self._known_end else now_ms), value or b""

    def close(self) -> None:
        self._reader.close()

    def _start_over(self) -> None:
        self._position = self._edges.log.start_offsets([self.place])[self.place]
        self._reader.assign({self.place: self._position})
        self._lost = False


def _decoded(value: bytes, place: TopicPartition) -> Control:
    try:
        return decode_control(value)
    except DecodeError as error:
        raise ConfigError(
            f"{place} holds something that this kstate cannot read. {error}",
            hint="use the release that the job runs with; nothing but kstate may write to the control topic.",
        ) from error


def _report(value: bytes) -> Report | None:
    """None for one that cannot be read: the next one says it all again."""
    try:
        return decode_report(value)
    except DecodeError:
        return None
