"""Queries of state over HTTP, for tools: GET /v1/OPERATOR/OPERATOR-ID/PARTITION/LO/HI gives an answer of
`kstate.answers`. 404: the worker does not run the key range; 400: that is no query.

A thread of its own serves one query at a time: scans hold the interpreter's lock now and then, and more of them at once
would only take more from the main thread.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import chain, islice
from types import TracebackType
from typing import BinaryIO, cast
from urllib.parse import quote, unquote

from kstate.answers import Entry, Query, RangeGone, encode_answer
from kstate.config import QuerySettings
from kstate.errors import ConfigError, KstateError, RetryableError
from kstate.keyspace import SLOTS, KeyRange
from kstate.plan import Shard

Answer = Callable[[Query], Iterator[Entry]]

_ANYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 (recognised, not bound to)
_CHUNK = 256
"""Entries that are sent at once."""
IDLE_S = 10.0
"""A client that is silent for so long is left."""


LEAVE_S = 2.0
"""How long an end waits for the query under way, which is cut short."""


class QueryServer:
    """Listens as long as the block lasts; `address` is what others are told, empty where nothing is answered."""

    def __init__(self, settings: QuerySettings, answer: Answer) -> None:
        """Raises ConfigError when the address cannot be had."""
        self.address = ""
        self._server: _Listener | None = None
        if settings.host:
            self._server = _bound(settings, answer)
            host = settings.advertised or (socket.gethostname() if settings.host in _ANYWHERE else settings.host)
            self.address = f"{host}:{self._server.server_address[1]}"
            self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="queries", daemon=True)

    def __enter__(self) -> QueryServer:
        if self._server is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.is_closing = True
            threading.Thread(target=self._server.shutdown, daemon=True).start()  # it waits for the query under way
            self._thread.join(LEAVE_S)
            self._server.server_close()


def ask(address: str, query: Query, seconds: float) -> BinaryIO:
    """The bytes of an answer as they come. Raises RangeGone, RetryableError when nobody answers, ConfigError."""
    shard, key_range = query.shard, query.key_range
    parts = [shard.operator, query.operator_id, shard.partition, key_range.lo, key_range.hi]
    connection = HTTPConnection(address, timeout=seconds)
    try:
        connection.request("GET", "/v1/" + "/".join(quote(str(part), safe="") for part in parts))
        response = connection.getresponse()
    except (OSError, HTTPException) as error:
        connection.close()
        raise RetryableError(
            f"The worker at {address} does not answer: {error}.", hint="does it run, and can it be reached from here?"
        ) from error
    if response.status == HTTPStatus.NOT_FOUND:
        connection.close()
        raise RangeGone
    if response.status != HTTPStatus.OK:
        reason = response.read(200).decode(errors="replace").strip()
        connection.close()
        raise ConfigError(
            f"What listens at {address} says {response.status}: {reason}", hint="is it a worker of kstate?"
        )
    return cast(BinaryIO, response)


class _Listener(HTTPServer):
    """One thread, one query at a time."""

    is_closing = False

    def __init__(self, settings: QuerySettings, answer: Answer) -> None:
        self.answer = answer
        super().__init__((settings.host, settings.port), _Handler)


def _bound(settings: QuerySettings, answer: Answer) -> _Listener:
    try:
        return _Listener(settings, answer)
    except OSError as error:
        raise ConfigError(
            f"Queries cannot be answered at {settings.host}:{settings.port}: {error.strerror or error}.",
            hint="set queries.host and queries.port to an address of this machine that is free; port 0 finds one.",
        ) from error


class _Handler(BaseHTTPRequestHandler):
    """One query."""

    server: _Listener
    timeout = IDLE_S

    def do_GET(self) -> None:
        try:
            query = read_query(self.path)
        except ValueError as error:
            self.send_error(HTTPStatus.BAD_REQUEST, str(error))
            return
        try:
            entries = self.server.answer(query)
            first = list(islice(entries, 1))
        except RangeGone:
            self.send_error(HTTPStatus.NOT_FOUND, "the key range does not run here")
            return
        except KstateError as error:
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR, error.what.splitlines()[0])
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/octet-stream")
        self.end_headers()
        chunks = encode_answer(chain(first, entries))
        while not self.server.is_closing and (data := b"".join(islice(chunks, _CHUNK))):
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the library's name)
        """Queries are not told of."""


def read_query(path: str) -> Query:
    """The query that a path names. Raises ValueError."""
    parts = [unquote(part) for part in path.removeprefix("/").split("/")]
    if len(parts) != 6 or parts[0] != "v1" or not all(part.isdecimal() and len(part) < 12 for part in parts[2:]):
        raise ValueError("expected /v1/OPERATOR/OPERATOR-ID/PARTITION/LO/HI")
    operator_id, partition, lo, hi = map(int, parts[2:])
    if not lo < hi <= SLOTS:
        raise ValueError(f"expected slots LO < HI <= {SLOTS}")
    if operator_id >= 1 << 16 or partition >= 1 << 32:
        raise ValueError("no such operator or partition")
    return Query(Shard(parts[1], partition), operator_id, KeyRange(lo, hi))
