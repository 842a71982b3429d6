"""`make demo`, small: the command that people run first must do what it says, and leave nothing behind."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
END_SECONDS = 240.0
RATE = 8_000
"""Words per second: half of what people see, as tests run beside others."""


@contextmanager
def demo(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The demo in a process of its own, whose temporary files, and those of all it starts, are in the folder."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.demo", "--rate", str(RATE)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def number_in(match: re.Match[str]) -> int:
    """The number that a pattern found."""
    return int(match[1].replace(",", ""))


def living(folder: Path) -> list[str]:
    """The command lines of all processes with this temporary folder, whoever started them."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"TMPDIR={folder}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # it has ended, or is somebody else's
            continue
    return found


def await_none_living(folder: Path, seconds: float) -> None:
    """Fail when a process is left after this time."""
    deadline = time.monotonic() + seconds
    while left := living(folder):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def found(pattern: str, output: str) -> re.Match[str]:
    """What must stand in the output."""
    match = re.search(pattern, output, re.MULTILINE)
    assert match, f"{pattern}\n{output}"
    return match


def test_the_demo_splits_kills_recovers_and_merges_and_proves_that_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    """Exit code 0 and the proofs: where moved keys were counted, records really in hand, gaps seen, every record."""
    with demo(tmp_path) as process:
        output, _ = process.communicate(timeout=END_SECONDS)
    assert process.returncode == 0, output
    words = found(r"^exactly-once: ([\d,]+) words, [\d,]+ distinct, 0 lost, 0 doubled$", output)
    assert number_in(words) >= RATE * 8
    assert number_in(found(r"SIGKILL to worker-\d .* has ([\d,]+) records in hand, uncommitted", output)) > 0
    assert number_in(found(r"^replayed ([\d,]+) records$", output)) > 0
    assert number_in(found(r"^split of count\[\d\], at worker-2: ([\d,]+) words of the moved keys", output)) > 0
    found(r"^recovered in \d+\.\d s$", output)
    found(r"│ nothing +│ nothing +│ – +│ \d+\.\d\d s +│$", output)
    found(r"│ split +│ count\[\d\] \[0x8000, 0x10000\) +│ \d+\.\d\d s +│ \d+\.\d\d s +│$", output)
    found(r"│ kill -9 worker-2 +│ .* │ \d+\.\d\d s +│ \d+\.\d\d s +│$", output)
    found(r"│ warm \d.*release \d.*done \d.* s +│ +worker-1 → worker-2 +│", output)
    await_none_living(tmp_path, 2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_demo_that_is_stopped_leaves_no_process_and_no_folder(number: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C in the middle of the job, a polite stop, and a kill that gives it no chance to clean up."""
    with demo(tmp_path) as process:
        assert process.stdout
        for line in process.stdout:
            if "plan 1" in line:
                break
        assert sum("kstate worker" in command for command in living(tmp_path)) == 3
        process.send_signal(number)
        code = process.wait(30)
    assert code == (130 if number is not signal.SIGKILL else -signal.SIGKILL)
    await_none_living(tmp_path, 15)
    assert list(tmp_path.iterdir()) == []
