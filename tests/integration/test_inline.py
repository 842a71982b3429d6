"""`kstate run --inline` in a terminal, on real Kafka: a debugger in a handler, and how one leaves it."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest

from kstate.testing.real_kafka import KafkaUnderTest
from tests.support.cluster import COMMAND, ROOT
from tests.support.oracle import assert_exactly_once, await_true, committed
from tests.support.records import Entry
from tests.support.topics import create_topics, entries, expected_tallies, produce_entries

pytestmark = [pytest.mark.integration]

JOB = """
from dataclasses import dataclass
from kstate import Context, Input, Job, Operator, Output, ValueState
from tests.support.records import Entry, Sum, Tally

class Tallies(Operator[str], uid="tally"):
    entries = Input(Entry, topic="{app}-entries", key="account")
    tallies = Output(Tally, topic="{app}-tallies")
    seen = ValueState(Sum, default=Sum(0, 0))

    @entries.each
    def add(self, entry: Entry, ctx: Context) -> None:
        before = self.seen.get()
        after = Sum(before.n + 1, before.total + entry.id)
        if entry.note == "look here":
            breakpoint()
        self.seen.set(after)
        self.tallies.emit(Tally(self.key, after.n, after.total, entry.id))

job = Job("{app}", [Tallies])
"""

PROMPT = "(Pdb) "
GIVEN = entries(500)
MARKED = GIVEN[300]


class Terminal:
    """A command in a terminal of its own: what a person types and sees. Log lines go elsewhere."""

    def __init__(self, folder: Path, app: str, servers: str, *arguments: str) -> None:
        self.seen = ""
        self.log = folder / "log"
        self._folder = folder
        self._keyboard, screen = pty.openpty()
        command = [*COMMAND, "run", f"inline_{app}:job", "--inline", *arguments]
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("KSTATE_", "PYTHONBREAKPOINT"))}
        environment |= {
            "KSTATE_BOOTSTRAP_SERVERS": servers,
            "KSTATE_DATA": str(folder / "data"),
            "PYTHONPATH": str(ROOT),
            "TERM": "dumb",
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=screen, stdout=screen, stderr=log, env=environment, cwd=folder, process_group=0
            )
        os.close(screen)

    def type(self, line: str) -> None:
        os.write(self._keyboard, f"{line}\n".encode())

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def press_ctrl_c(self) -> None:
        """What the terminal's driver does for its foreground process."""
        self.signal(signal.SIGINT)

    def await_text(self, text: str, seconds: float = 40) -> str:
        """What was shown up to here, since it was asked last."""
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            assert time.monotonic() < deadline, f"no {text!r} on the screen:\n{self.seen}\n{self.log.read_text()}"
            if select.select([self._keyboard], [], [], 0.1)[0]:
                with suppress(OSError):  # EIO: the other end is closed
                    self.seen += os.read(self._keyboard, 65_536).decode()
            assert self._process.poll() is None or text in self.seen, self.log.read_text()
        shown, _, self.seen = self.seen.partition(text)
        return shown

    def wait(self, seconds: float = 40) -> int:
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end:\n{self.seen}\n{self.log.read_text()}") from None

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._keyboard)


class Given:
    """An application and its job, in a folder of its own."""

    def __init__(self, servers: str, folder: Path) -> None:
        self.servers = servers
        self.app = f"t{time.time_ns() % 10**12}"
        self.folder = folder
        (folder / f"inline_{self.app}.py").write_text(JOB.format(app=self.app))
        create_topics(servers, {f"{self.app}-entries": 2, f"{self.app}-tallies": 2})

    def produce(self, *, mark: Entry | None) -> None:
        """All entries; the job calls breakpoint() at the marked one."""
        marked = [Entry(e.account, e.id, "look here" if e is mark else "") for e in GIVEN]
        produce_entries(self.servers, f"{self.app}-entries", marked)

    def terminal(self, *arguments: str) -> Terminal:
        return Terminal(self.folder, self.app, self.servers, *arguments)

    def assert_exactly_once(self) -> None:
        assert_exactly_once(self.servers, f"{self.app}-tallies", expected_tallies(GIVEN))


@pytest.fixture
def given(kstate_kafka: KafkaUnderTest, tmp_path: Path) -> Given:
    """An application that counts entries."""
    return Given(kstate_kafka.bootstrap_servers, tmp_path)


def test_breakpoint_in_a_handler_works_and_the_job_ends_with_the_right_totals(given: Given) -> None:
    """Expressions are evaluated, Ctrl-C prompts again, and a pause that is longer than any patience harms nobody."""
    given.produce(mark=MARKED)
    with closing(given.terminal("--until-end")) as terminal:
        terminal.await_text(PROMPT)
        terminal.type("f'{entry.id} of {self.key}, before: {before.n}'")
        assert f"{MARKED.id} of {MARKED.account}, before: " in terminal.await_text(PROMPT)
        terminal.press_ctrl_c()
        assert "KeyboardInterrupt" in terminal.await_text(PROMPT)
        time.sleep(6)  # an outage in the eyes of a leader begins after five seconds
        terminal.type("c")
        assert terminal.wait() == 0, terminal.log.read_text()
        assert " is dead" not in terminal.log.read_text()
    given.assert_exactly_once()


def test_leaving_the_debugger_fails_no_record_and_the_next_run_repeats_the_epoch(given: Given) -> None:
    """`quit` ends the run, says so, and the record is there again; the next run need not wait for missed heartbeats."""
    given.produce(mark=MARKED)
    with closing(given.terminal("--until-end")) as terminal:
        terminal.await_text(PROMPT)
        terminal.type("q")
        assert terminal.wait(10) == 130, terminal.log.read_text()
        assert "the next run repeats it" in terminal.log.read_text()
    begun = time.monotonic()
    with closing(given.terminal("--until-end")) as terminal:
        terminal.await_text(PROMPT)
        assert time.monotonic() - begun < 8
        terminal.type("c")
        assert terminal.wait() == 0, terminal.log.read_text()
    given.assert_exactly_once()


def test_ctrl_c_while_it_runs_ends_it_in_order(given: Given) -> None:
    """The epoch in hand is committed; exit code 0, and the next run has nothing left to do."""
    given.produce(mark=None)
    with closing(given.terminal()) as terminal:
        await_true(lambda: "adopted" in terminal.log.read_text(), 40, "the start")
        terminal.press_ctrl_c()
        assert terminal.wait(10) == 0, terminal.log.read_text()
    with closing(given.terminal("--until-end")) as terminal:
        assert terminal.wait() == 0, terminal.log.read_text()
    given.assert_exactly_once()


def test_sigterm_at_the_prompt_ends_it_at_once(given: Given) -> None:
    """Nobody is asked first, and nothing of the epoch is committed."""
    given.produce(mark=MARKED)
    with closing(given.terminal()) as terminal:
        terminal.await_text(PROMPT)
        terminal.signal(signal.SIGTERM)
        assert terminal.wait(10) == 130, terminal.log.read_text()
    assert committed(given.servers, f"{given.app}-tallies") == []
