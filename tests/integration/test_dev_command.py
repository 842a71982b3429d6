"""`kstate dev` as a person or a script runs it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

pytestmark = pytest.mark.integration

DEV = [sys.executable, "-m", "kstate", "dev"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_dev_says_where_the_broker_is_and_takes_all_with_it_when_it_ends(number: signal.Signals) -> None:
    """One line of JSON; Ctrl-C and SIGTERM end broker and data in order, with exit code 0."""
    with subprocess.Popen([*DEV, "--port", "0", "--json"], stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        told = json.loads(command.stdout.readline())
        client = AdminClient({"bootstrap.servers": told["bootstrap_servers"], "log_level": 0})
        client.list_topics(timeout=10)
        assert client.cluster_id(10) == told["cluster_id"]
        command.send_signal(number)
        assert command.wait(30) == 0
    assert not Path(told["folder"]).exists()
    assert not Path(f"/proc/{told['pid']}").exists()


def test_dev_on_a_port_in_use_says_so_and_exits_with_2() -> None:
    """A message, no stack trace."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = subprocess.run([*DEV, "--port", str(port)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"kstate dev: Port {port} is in use")
    assert "Traceback" not in done.stderr
