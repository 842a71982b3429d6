"""Real processes of a job under test: the commands that users type, on a real broker, in a folder of the test's own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kstate.messages import ProcessExited
from kstate.plan import reports_topic
from kstate.wire import encode_report
from tests.support.oracle import Seen, await_true, committed
from tests.support.sabotage import FOLDER_VARIABLE, Deed, Event, EventLog, Order
from tests.support.topics import produce

ROOT = Path(__file__).parents[2]
COMMAND = os.environ.get("KSTATE_TEST_COMMAND", f"{sys.executable} -m kstate").split()
"""How `kstate` is called."""
END_SECONDS = 60.0
DEED_SECONDS = 30.0


class Process:
    """A command under way, its output in a file."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], output: Path) -> None:
        self.name = name
        self.output = output
        with output.open("ab") as sink:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=environment, cwd=ROOT
            )
        self.pid = self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs, negative when a signal ended it."""
        return self._process.poll()

    def signal(self, number: signal.Signals) -> None:
        if self.exit_code is None:
            self._process.send_signal(number)

    def wait(self, seconds: float = END_SECONDS) -> int:
        """The exit code, within the time."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end in {seconds} s; its output:\n{self.text[-6000:]}") from None

    @property
    def text(self) -> str:
        """What it printed so far, and what runs before it under the same name printed."""
        return self.output.read_text(errors="replace") if self.output.exists() else ""


@dataclass(slots=True)
class Cluster:
    """One application: its processes, their folder, its event log and orders."""

    bootstrap_servers: str
    app: str
    job: str
    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    """Further environment variables."""
    processes: list[Process] = field(default_factory=list)
    log: EventLog = field(init=False)

    def __post_init__(self) -> None:
        self.log = EventLog(self.folder)

    @property
    def data(self) -> Path:
        """Where the workers keep their stores."""
        return self.folder / "data"

    def topic(self, name: str) -> str:
        """A topic of this application's users."""
        return f"{self.app}-{name}"

    def internal(self, name: str) -> str:
        """A topic of kstate's own."""
        return f"{self.app}.{name}"

    # Processes

    def command(self, name: str, *arguments: str) -> Process:
        """Start `kstate ...`; `name` names its output."""
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("KSTATE_")},
            "KSTATE_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "KSTATE_DATA": str(self.data),
            "KSTATE_STREAM_PARTITIONS": "4",
            "KSTATE_EPOCH__POLL_RECORDS": "100",  # slowed handlers must not make epochs long
            "KSTATE_FAILURE__DEATHS_MAX": "1000",  # tests kill from outside, again and again, where no input is poison
            "KSTATE_TEST_APP": self.app,
            FOLDER_VARIABLE: str(self.folder),
            "PYTHONUNBUFFERED": "1",
            **self.settings,
        }
        script = [*COMMAND, *arguments]
        process = Process(name, script, environment, self.folder / f"{name}.out")
        self.processes.append(process)
        return process

    def run(self, *arguments: str, workers: int = 2) -> Process:
        """`kstate run`: a coordinator and workers, supervised."""
        return self.command("run", "run", self._job, "--workers", str(workers), *arguments)

    def coordinator(self, *arguments: str) -> Process:
        return self.command("coordinator", "coordinator", self._job, *arguments)

    def worker(self, name: str, *arguments: str) -> Process:
        return self.command(name, "worker", self._job, "--name", name, *arguments)

    @property
    def _job(self) -> str:
        return f"tests.support.jobs:{self.job}"

    def close(self) -> None:
        """End everything by its process id, orphans of a killed supervisor included."""
        for process in self.processes:
            process.signal(signal.SIGCONT)
            process.signal(signal.SIGTERM)
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and any(process.exit_code is None for process in self.processes):
            time.sleep(0.05)
        for process in self.processes:
            process.signal(signal.SIGKILL)
            process.wait()
        for pid in self.living():
            os.kill(pid, signal.SIGKILL)

    def living(self) -> list[int]:
        """The ids of all processes that belong to this application, whoever started them."""
        mark = f"{FOLDER_VARIABLE}={self.folder}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return found

    # Orders and events

    def order(self, worker: str, order: Order) -> None:
        """Give a worker an order; it must have carried out the last one."""
        path = self.folder / f"{worker}.order"
        assert not path.exists(), f"{worker} has not taken its last order"
        draft = path.with_suffix(".draft")
        draft.write_text(order.written())
        draft.rename(path)

    def pace(self, seconds: float) -> None:
        """Make every handler call take this long; 0: as fast as it can."""
        path = self.folder / "pace"
        if seconds:
            path.write_text(str(seconds))
        else:
            path.unlink(missing_ok=True)

    def report_exit(self, dead: Event) -> None:
        """Tell the leader of a death, as the supervisor of `kstate run` does: nobody waits for missed heartbeats."""
        report = encode_report(ProcessExited(dead.incarnation, -signal.SIGKILL))
        produce(self.bootstrap_servers, reports_topic(self.app), [(None, report)], partition=0)

    def events(self, worker: str | None = None) -> list[Event]:
        """All events so far, of one worker or of all."""
        return [event for event in self.log.events() if worker in (None, event.worker)]

    def deed(self, worker: str, order: Order, seconds: float = DEED_SECONDS) -> Event:
        """Order something and wait until it is done: the event that proves in which window the victim was."""
        done = len(self.deeds(worker))
        self.order(worker, order)
        return self.await_deed(worker, order, done, seconds)

    def await_deed(self, worker: str, order: Order, done: int, seconds: float = DEED_SECONDS) -> Event:
        """Wait for a given order, after so many that were carried out before."""
        self.await_true(lambda: len(self.deeds(worker)) > done, seconds, f"{order} by {worker}")
        event = self.deeds(worker)[-1]
        assert (event.step, event.deed) == (order.at, order.do.value)
        assert event.hand >= order.hand
        if order.do is Deed.KILL:
            await_true(lambda: not is_running(event.pid), 5, f"the end of process {event.pid}")
        if order.do is Deed.STOP:
            await_true(lambda: is_stopped(event.pid), 5, f"the stop of process {event.pid}")
        return event

    def deeds(self, worker: str) -> list[Event]:
        """The orders that a worker has carried out."""
        return [event for event in self.events(worker) if event.deed]

    def await_step(self, worker: str, step: str, after: float, seconds: float = DEED_SECONDS) -> Event:
        """The first time that a worker reached a step after a time."""

        def found() -> list[Event]:
            return [event for event in self.events(worker) if event.step == step and event.at > after]

        self.await_true(lambda: bool(found()), seconds, f"step {step!r} of {worker}")
        return found()[0]

    def output(self, name: str) -> str:
        """What all processes of a name printed."""
        path = self.folder / f"{name}.out"
        return path.read_text(errors="replace") if path.exists() else ""

    def records(self, topic: str) -> list[Seen]:
        """All committed records of a topic."""
        return committed(self.bootstrap_servers, topic)

    def await_records(self, topic: str, count: int, seconds: float = DEED_SECONDS) -> None:
        """Wait until at least so many records of a topic are committed."""

        def there() -> bool:
            time.sleep(0.1)  # each look reads the whole topic
            return len(committed(self.bootstrap_servers, topic)) >= count

        self.await_true(there, seconds, f"{count} records in {topic}")

    def await_true(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait; a failure shows what the processes printed, and comes at once when all of them have ended."""
        deadline = time.monotonic() + seconds
        while not condition():
            if all(process.exit_code is not None for process in self.processes) and not condition():
                raise AssertionError(f"no {what} before the end\n{self.report()}")
            assert time.monotonic() < deadline, f"no {what} in {seconds} s\n{self.report()}"
            time.sleep(0.02)

    def report(self) -> str:
        """The ends of all outputs and of the event log, for a failure."""
        tails = [f"--- {p.name} (exit code {p.exit_code})\n{p.text[-3000:]}" for p in self.processes]
        events = "\n".join(f"{e.at:.3f} {e.worker} {e.pid} {e.step} {e.hand} {e.deed}" for e in self.events()[-40:])
        return "\n".join([*tails, "--- events", events])


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped by a signal."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    return False


def resident_bytes(pid: int) -> int:
    """Memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def cluster(bootstrap_servers: str, job: str, folder: Path, **settings: str) -> Iterator[Cluster]:
    """An application with a name of its own; all its processes are gone at the end."""
    app = f"t{time.time_ns() % 10**12}"
    made = Cluster(bootstrap_servers, app, job, folder, dict(settings))
    try:
        yield made
    finally:
        made.close()
