"""Queries over a real connection on this machine."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from http.client import HTTPConnection
from itertools import count

import pytest

from kstate.adapters.broker_setup import HOST, free_port
from kstate.adapters.query_server import QueryServer, ask, read_query
from kstate.answers import Entry, Query, RangeGone, decode_answer
from kstate.config import QuerySettings
from kstate.errors import ConfigError, DecodeError, RetryableError
from kstate.keyspace import FULL_RANGE, KeyRange
from kstate.plan import Shard

HERE = QuerySettings(host=HOST)
QUERY = Query(Shard("count by/ä?", 3), 7, KeyRange(5, 0x9000))


def entries(number: int) -> list[Entry]:
    """So many."""
    return [(b"key-%d" % n, b"v" * n, n) for n in range(number)]


def status(address: str, path: str) -> int:
    """What the server says to a path."""
    connection = HTTPConnection(address, timeout=10)
    connection.request("GET", path)
    try:
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_query_comes_as_it_was_asked_and_its_answer_whole() -> None:
    """One after the other, of any length."""
    asked: list[Query] = []

    def answer(query: Query) -> Iterator[Entry]:
        asked.append(query)
        return iter(entries(len(asked) * 500 - 500))

    with QueryServer(HERE, answer) as server:
        for number in (0, 500, 1000):
            with ask(server.address, QUERY, 10) as data:
                assert list(decode_answer(data)) == entries(number)
    assert asked == [QUERY] * 3


def test_a_range_that_does_not_run_here_is_told_before_and_after() -> None:
    """By the status, or by the end of the answer."""

    def gone(query: Query) -> Iterator[Entry]:
        if query.key_range == FULL_RANGE:
            yield from entries(1000)
        raise RangeGone

    with QueryServer(HERE, gone) as server:
        with pytest.raises(RangeGone):
            ask(server.address, QUERY, 10)
        with ask(server.address, Query(Shard("a", 0), 1, FULL_RANGE), 10) as data, pytest.raises(RangeGone):
            list(decode_answer(data))


def test_without_a_host_nothing_is_listened_to() -> None:
    """The default."""
    with QueryServer(QuerySettings(), lambda _: iter(())) as server:
        assert server.address == ""


def test_the_address_that_others_are_told() -> None:
    """The machine's name where it listens anywhere, or what the settings say."""
    anywhere = "0.0.0.0"
    with QueryServer(QuerySettings(host=anywhere), lambda _: iter(())) as server:
        assert not server.address.startswith(anywhere)
    port = free_port()
    with QueryServer(QuerySettings(HOST, port, "worker.example"), lambda _: iter(())) as server:
        assert server.address == f"worker.example:{port}"


def test_an_address_that_is_taken_is_refused() -> None:
    """With its name."""
    with QueryServer(HERE, lambda _: iter(())) as server:
        port = int(server.address.partition(":")[2])
        with pytest.raises(ConfigError, match=f"cannot be answered at {HOST}:{port}.*queries.port"):
            QueryServer(QuerySettings(HOST, port), lambda _: iter(()))


def test_a_server_that_is_not_there_may_be_asked_again() -> None:
    """It is not known whether it comes back."""
    with pytest.raises(RetryableError, match="does not answer"):
        ask(f"{HOST}:{free_port()}", QUERY, 10)


@pytest.mark.parametrize(
    "path",
    ["/", "/v2/a/1/0/0/1", "/v1/a/1/0/0", "/v1/a/1/0/9/9", "/v1/a/1/0/0/65537", "/v1/a/-1/0/0/1", "/v1/a/99999/0/0/1"],
)
def test_what_is_no_query_is_refused(path: str) -> None:
    """Nobody is asked then."""
    with pytest.raises(ValueError, match=r"expected|no such"):
        read_query(path)
    with QueryServer(HERE, lambda _: iter(())) as server:
        assert status(server.address, path) == 400


def test_an_end_cuts_an_answer_short() -> None:
    """A worker that is to stop does not wait for who reads all it has; what came is torn."""
    began = threading.Event()

    def endless(query: Query) -> Iterator[Entry]:
        for number in count():
            yield b"k", b"v" * 1000, number
            began.set()

    with QueryServer(HERE, endless) as server:
        data = ask(server.address, QUERY, 10)
        assert began.wait(10)
    with data, pytest.raises((DecodeError, OSError)):
        deque(decode_answer(data), maxlen=0)
