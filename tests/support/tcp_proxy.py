"""A TCP proxy between Kafka clients and a broker that breaks connections on purpose.

Clients must know the broker by the proxy's address only, so the broker advertises it:

    with TcpProxy() as proxy:
        advertised = {"advertised.listeners": f"PLAINTEXT://{proxy.address}"}
        with EmbeddedBroker(BrokerSettings(properties=advertised)) as broker:
            proxy.target = broker.bootstrap_servers
            ...  # clients use proxy.address

It forwards whole frames of Kafka's protocol (4 bytes length, big-endian, then the frame): plaintext listeners only.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from types import TracebackType

from kstate.adapters.broker_setup import HOST, free_port

PRODUCE, FETCH, LIST_OFFSETS, INIT_PRODUCER_ID, ADD_PARTITIONS_TO_TXN, END_TXN = 0, 1, 2, 22, 24, 26
"""Kafka's api keys; the last is that of the request that commits or aborts a transaction."""


class Mischief(Enum):
    """What happens to the requests that a rule picks."""

    WITHHOLD_REPLY = auto()
    """The broker gets the request and acts on it; the client never hears of it, until `release`."""
    HOLD_REQUEST = auto()
    """The request stays on its way, until `release`, even when the client has hung up meanwhile."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Which requests meet which mischief: EndTxn, of any or of one `transactional_id`, or those of another `api_key`,
    whoever sends them.
    """

    mischief: Mischief
    transactional_id: str | None = None
    api_key: int = END_TXN

    def picks(self, request: bytes) -> bool:
        """Whether a request frame (without its length) is meant."""
        (api_key,) = struct.unpack_from(">h", request)
        if api_key != self.api_key:
            return False
        return self.transactional_id is None or self.transactional_id == end_txn_id(request)


def end_txn_id(request: bytes) -> str:
    """The transactional id of an EndTxn request, versions 0 to 2: header, client id, then the id."""
    (length,) = struct.unpack_from(">h", request, 8)
    offset = 10 + max(length, 0)
    (length,) = struct.unpack_from(">h", request, offset)
    return request[offset + 2 : offset + 2 + length].decode()


@dataclass(slots=True, eq=False)
class _Link:
    """One client's connection and its twin to the broker."""

    client: socket.socket
    broker: socket.socket
    muted: set[int] = field(default_factory=set)
    """Correlation ids whose replies are withheld."""
    held: int = 0
    """Requests on their way: the connection to the broker stays until they are released."""


class TcpProxy:
    """Listens on a free port of this machine; every `with` block ends all connections."""

    def __init__(self) -> None:
        self.port = free_port()
        self.target = ""
        """host:port of the broker; may be set after the proxy's start."""
        self.delay_seconds = 0.0
        """Each frame, in both directions, is that late."""
        self._changed = threading.Condition()
        self._rule: Rule | None = None
        self._held: list[Callable[[], None]] = []
        self._links: list[_Link] = []
        self._cut = self._closed = False
        self._hanging: frozenset[str] = frozenset()
        self._listener = socket.create_server((HOST, self.port))

    @property
    def address(self) -> str:
        """host:port for clients."""
        return f"{HOST}:{self.port}"

    def __enter__(self) -> TcpProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._hang_up()

    # -- mischief

    def cut(self) -> int:
        """End all connections and refuse new ones; how many there were."""
        self._cut = True
        return self._hang_up()

    def disconnect(self) -> None:
        """End the clients' side of all connections once; what is held stays on its way to the broker."""
        with self._changed:
            links = list(self._links)
        for link in links:
            _close(link.client)

    def hang(self, *directions: str) -> None:
        """Half open: nothing passes "up" to the broker, or "down" to the client; no connection is closed."""
        with self._changed:
            self._hanging = frozenset(directions)

    def mend(self) -> None:
        """Pass everything again; what was held stays held."""
        with self._changed:
            self._cut, self._hanging, self._rule, self.delay_seconds = False, frozenset(), None, 0.0
            self._changed.notify_all()

    def apply(self, rule: Rule) -> None:
        """Pick requests from now on, until `mend`."""
        with self._changed:
            self._rule = rule

    def wait_held(self, count: int = 1, seconds: float = 15.0) -> None:
        """Wait until so many requests or replies are held."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._held) >= count, seconds):
                raise TimeoutError(f"{len(self._held)} of {count} requests were held within {seconds} s")

    def release(self) -> int:
        """Let everything held go on; how many of them."""
        with self._changed:
            held, self._held = self._held, []
        for send in held:
            with contextlib.suppress(OSError):
                send()
        return len(held)

    # -- forwarding

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._cut or not self.target:
                client.close()
                continue
            host, port = self.target.rsplit(":", 1)
            try:
                link = _Link(client, socket.create_connection((host, int(port)), timeout=5))
            except OSError:
                client.close()
                continue
            link.broker.settimeout(None)
            with self._changed:
                self._links.append(link)
            for flow in (self._requests, self._replies):
                threading.Thread(target=flow, args=(link,), daemon=True).start()

    def _requests(self, link: _Link) -> None:
        with contextlib.suppress(OSError):
            while request := _read_frame(link.client):
                rule = self._rule
                if rule and rule.picks(request[4:]):
                    if rule.mischief is Mischief.HOLD_REQUEST:
                        link.held += 1
                        self._hold(lambda request=request: self._late(link, request))  # type: ignore[misc]
                        continue
                    link.muted.add(struct.unpack_from(">i", request, 8)[0])
                self._pass("up")
                link.broker.sendall(request)
        _close(link.client)
        if not link.held:
            _close(link.broker)

    def _replies(self, link: _Link) -> None:
        with contextlib.suppress(OSError):
            while reply := _read_frame(link.broker):
                (correlation,) = struct.unpack_from(">i", reply, 4)
                if correlation in link.muted:
                    link.muted.discard(correlation)
                    self._hold(lambda reply=reply: link.client.sendall(reply))  # type: ignore[misc]
                    continue
                self._pass("down")
                with contextlib.suppress(OSError):  # a held request outlives its client
                    link.client.sendall(reply)
        _close(link.client)
        _close(link.broker)
        with self._changed:
            self._links = [other for other in self._links if other is not link]

    def _late(self, link: _Link, request: bytes) -> None:
        link.held -= 1
        link.broker.sendall(request)

    def _hold(self, send: Callable[[], None]) -> None:
        with self._changed:
            self._held.append(send)
            self._changed.notify_all()

    def _pass(self, direction: str) -> None:
        """Wait as long as the proxy hangs in this direction, and the delay."""
        if self.delay_seconds:
            time.sleep(self.delay_seconds)
        with self._changed:
            self._changed.wait_for(lambda: direction not in self._hanging or self._closed or self._cut)

    def _hang_up(self) -> int:
        with self._changed:
            links, self._links = self._links, []
            self._changed.notify_all()
        for link in links:
            _close(link.client)
            _close(link.broker)
        return len(links)


def _read_frame(source: socket.socket) -> bytes:
    """A frame with its length; empty at the end of the connection."""
    head = _read(source, 4)
    if len(head) < 4:
        return b""
    (size,) = struct.unpack(">i", head)
    return head + _read(source, size)


def _read(source: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = source.recv(min(size - len(parts), 1 << 20))
        if not part:
            return b""
        parts += part
    return bytes(parts)


def _close(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
