"""A small schema registry of the tests' own: the part of Confluent's REST interface that kstate speaks.

It shares no code with kstate. Orders make it fail: `fail_next` requests with a status, ask for a user, or go away.
"""

from __future__ import annotations

import json
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"


@dataclass(slots=True)
class Refusal(Exception):  # noqa: N818 - an answer, no error of ours
    """An answer other than 200."""

    status: int
    code: int
    message: str


@dataclass(slots=True)
class Schemas:
    """What the registry knows; it survives a restart of the server."""

    texts: list[str] = field(default_factory=list)
    """Id 1 first."""
    subjects: dict[str, list[int]] = field(default_factory=dict)
    """Ids of a subject's versions, oldest first."""
    answers: dict[int, dict[str, Any]] = field(default_factory=dict)
    """What else is answered for an id."""

    def add(self, subject: str, schema: Any) -> int:
        """Register a schema (JSON, or its text); Refusal when it cannot read the latest one of the subject."""
        text = schema if isinstance(schema, str) else json.dumps(schema)
        known = [number for number in self.subjects.get(subject, []) if _same(self.texts[number - 1], text)]
        if known:
            return known[0]
        if versions := self.subjects.get(subject):
            self._check(subject, json.loads(self.texts[versions[-1] - 1]), json.loads(text))
        if text not in self.texts:
            self.texts.append(text)
        number = self.texts.index(text) + 1
        self.subjects.setdefault(subject, []).append(number)
        return number

    def _check(self, subject: str, old: Any, new: Any) -> None:
        """New fields need a default, others keep their type (records only)."""
        if not isinstance(old, dict) or "fields" not in old:
            return
        before = {each["name"]: each["type"] for each in old["fields"]}
        for each in new["fields"]:
            if each["name"] not in before and "default" not in each:
                raise Refusal(
                    409, 409, f"incompatible with the latest of {subject}: READER_FIELD_MISSING_DEFAULT_VALUE"
                )
            if before.get(each["name"], each["type"]) != each["type"]:
                raise Refusal(409, 409, f"incompatible with the latest of {subject}: TYPE_MISMATCH")


@dataclass(slots=True)
class RegistryServer:
    """A running server; `requests` are the method and path of all that it was asked, failures included."""

    port: int
    schemas: Schemas
    requests: list[str] = field(default_factory=list)
    fail_next: list[int | bytes] = field(default_factory=list)
    """Answers to give first: a status, or the body of a 200."""
    user: str = ""
    """`user:password` that it asks for."""
    read_only: bool = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(self, method: str, path: str, headers: Any, body: Any) -> Any:
        """What a request is answered; raises Refusal."""
        self.requests.append(f"{method} {path}")
        if self.fail_next:
            order = self.fail_next.pop(0)
            if isinstance(order, bytes):
                return order
            raise Refusal(order, order * 100, "ordered")
        if self.user and headers.get("Authorization") != f"Basic {b64encode(self.user.encode()).decode()}":
            raise Refusal(401, 40101, "Unauthorized")
        match method, [unquote(part) for part in path.split("/")[1:]]:
            case "GET", ["schemas", "ids", number]:
                return self._by_id(int(number))
            case "GET", ["subjects", subject, "versions", "latest"]:
                return self._version(subject, 0)
            case "GET", ["subjects", subject, "versions", version]:
                return self._version(subject, int(version))
            case "POST", ["subjects", subject, "versions"]:
                if self.read_only:
                    raise Refusal(403, 40301, "not allowed to write")
                return {"id": self.schemas.add(subject, body["schema"])}
        raise Refusal(404, 404, "HTTP 404 Not Found")

    def _by_id(self, number: int) -> Any:
        if not 0 < number <= len(self.schemas.texts):
            raise Refusal(404, 40403, "Schema not found")
        return {"schema": self.schemas.texts[number - 1], **self.schemas.answers.get(number, {})}

    def _version(self, subject: str, version: int) -> Any:
        """A version of a subject, the latest for 0."""
        if subject not in self.schemas.subjects:
            raise Refusal(404, 40401, f"Subject '{subject}' not found.")
        if version > len(self.schemas.subjects[subject]):
            raise Refusal(404, 40402, f"Version {version} not found.")
        number = self.schemas.subjects[subject][version - 1]
        return {"subject": subject, "id": number, **self._by_id(number)}


@contextmanager
def registry_server(schemas: Schemas | None = None, port: int = 0) -> Iterator[RegistryServer]:
    """A server on a free port, or on the one where it was before."""
    made = RegistryServer(port, schemas or Schemas())

    class Handler(BaseHTTPRequestHandler):
        timeout = 5

        def do_GET(self) -> None:
            self._answer("GET", None)

        def do_POST(self) -> None:
            self._answer("POST", json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def log_message(self, *args: Any) -> None:
            """Quiet."""

        def _answer(self, method: str, body: Any) -> None:
            try:
                status, found = 200, made.answer(method, self.path, self.headers, body)
            except Refusal as refusal:
                status, found = refusal.status, {"error_code": refusal.code, "message": refusal.message}
            data = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", MEDIA_TYPE)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    made.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _same(one: str, other: str) -> bool:
    return bool(json.loads(one) == json.loads(other))
