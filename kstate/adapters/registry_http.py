"""A schema registry behind a URL, spoken to as Confluent's REST interface asks for; Apicurio, Karapace and Redpanda
answer the same.

    GET  /schemas/ids/ID                  {"schema": text}
    GET  /subjects/SUBJECT/versions/latest  {"id": number, "schema": text}, also by number: what a schema refers to
    POST /subjects/SUBJECT/versions       {"schema": text} → {"id": number}

User and password stand in the URL and are shown nowhere. Trusted certificates are those of OpenSSL (SSL_CERT_FILE).
"""

from __future__ import annotations

import json
import ssl
import time
from base64 import b64encode
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit
from urllib.request import Request, urlopen

from kstate.errors import ConfigError, RetryableError
from kstate.schemas import canonical, with_types

TIMEOUT_SECONDS = 3.0
PAUSES_SECONDS = (0.1, 0.3)
"""Before the second and third try of a request that the registry could not serve; then the caller waits."""
MISSING_SECONDS = 10.0
"""How long an id that is not there is not asked for again: a follower of the registry may lag behind its leader."""
MISSING_MAX = 100
"""So many of them, and no other unknown id is asked for either: these are no ids but the start of something else."""
ANSWER_BYTES_MAX = 16 << 20

_MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
_SCHEMA_NOT_FOUND, _SUBJECT_NOT_FOUND, _VERSION_NOT_FOUND = 40403, 40401, 40402
_TOO_MANY_REQUESTS, _REQUEST_TIMEOUT = 429, 408


class HttpRegistry:
    """Satisfies `interfaces.Registry`. An id's schema never changes, so each is asked for once."""

    def __init__(self, url: str, *, timeout: float = TIMEOUT_SECONDS) -> None:
        """ConfigError when it is no URL. Nothing is asked yet."""
        self.name, self._authorization = _without_credentials(url)
        self._timeout = timeout
        self._schemas: dict[int, str] = {}
        self._missing: dict[int, float] = {}

    def schema(self, schema_id: int) -> str | None:
        """The schema's text, None for an id that the registry does not know. Raises RetryableError, ConfigError."""
        known = self._schemas.get(schema_id)
        if known is not None or self._is_missing(schema_id):
            return known
        answer = self._ask("GET", f"/schemas/ids/{schema_id}")
        if answer is None:
            self._missing[schema_id] = time.monotonic() + MISSING_SECONDS
            return None
        if (kind := answer.get("schemaType", "AVRO")) != "AVRO":
            raise ConfigError(
                f"Schema {schema_id} of {self.name} is of type {kind}, which kstate does not read.",
                hint="read a topic that is written with Avro.",
            )
        self._schemas[schema_id] = self._complete(answer)
        return self._schemas[schema_id]

    def _is_missing(self, schema_id: int) -> bool:
        """Whether it was asked for shortly before, in vain."""
        now = time.monotonic()
        self._missing = {each: until for each, until in self._missing.items() if now < until}
        return schema_id in self._missing or len(self._missing) >= MISSING_MAX

    def register(self, subject: str, schema: str) -> int:
        """The id of a schema under a subject, registered if it is not there yet.

        ConfigError, with the registry's message, when it is refused. What differs in documentation only is the same.
        """
        path = f"/subjects/{quote(subject, safe='')}/versions"
        latest = self._ask("GET", f"{path}/latest")
        if latest is None or _canonical(self._complete(latest)) != _canonical(schema):
            latest = self._ask("POST", path, {"schema": schema}, f"schema of subject {subject!r}")
        if latest is None or not isinstance(latest.get("id"), int):
            raise self._no_registry(f"gives no id for subject {subject!r}")
        return int(latest["id"])

    def _ask(self, method: str, path: str, body: Any = None, what: str = "") -> dict[str, Any] | None:
        """An answer, None where the thing is not there; a request that could not be served is repeated shortly."""
        reason = ""
        for pause in (*PAUSES_SECONDS, None):
            try:
                return self._ask_once(method, path, body)
            except HTTPError as error:
                with error:
                    code, message = _error_of(error)
                if error.code < 500 and error.code not in (_TOO_MANY_REQUESTS, _REQUEST_TIMEOUT):
                    self._check_absent(error.code, code, message, what)
                    return None
                reason = f"answers {error.code}: {message}"
            except (OSError, HTTPException) as error:
                raise self._away(error) from error
            if pause is not None:
                time.sleep(pause)
        raise RetryableError(f"The schema registry {self.name} {reason}.", hint="it is asked again.")

    def _ask_once(self, method: str, path: str, body: Any) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.name + path, data, {"Accept": _MEDIA_TYPE}, method=method)  # noqa: S310 (checked: http)
        if data is not None:
            request.add_header("Content-Type", _MEDIA_TYPE)
        if self._authorization:
            request.add_unredirected_header("Authorization", self._authorization)  # for this host alone
        with urlopen(request, timeout=self._timeout) as answer:  # noqa: S310 (checked: http)
            text = answer.read(ANSWER_BYTES_MAX)
        try:
            found = json.loads(text)
        except ValueError as error:
            raise self._no_registry("does not answer in JSON") from error
        if not isinstance(found, dict):
            raise self._no_registry("does not answer with an object")
        return found

    def _check_absent(self, status: int, code: int, message: str, what: str) -> None:
        """ConfigError for every refusal but that something is not there."""
        if code in (_SCHEMA_NOT_FOUND, _SUBJECT_NOT_FOUND, _VERSION_NOT_FOUND):
            return
        if status in (401, 403):
            raise ConfigError(
                f"The schema registry {self.name} answers {status} to this user: {message}.",
                hint="give user and password in the URL that KSTATE_REGISTRY holds or refers to, and what it needs: "
                "read, and write for the subjects of outputs whose schema is not registered yet.",
            )
        if status in (409, 422):
            raise ConfigError(
                f"The schema registry {self.name} refuses the {what or 'request'}: {message}",
                hint="make the schema compatible (new fields need a default), or change the subject's rule.",
            )
        raise self._no_registry(f"answers {status}: {message}")

    def _complete(self, answer: dict[str, Any]) -> str:
        """The text of a schema with the types of other schemas that it refers to in place."""
        text = self._text_of(answer)
        types: dict[str, Any] = {}
        try:
            self._collect(answer, types)
            if not types:
                return text
            return json.dumps(with_types(json.loads(canonical(json.loads(text))), types))
        except ValueError as error:
            raise self._no_registry(f"gives a schema that is none: {error}") from error

    def _collect(self, answer: dict[str, Any], types: dict[str, Any]) -> None:
        """The types that a schema refers to, by full name, and those that they refer to."""
        for reference in answer.get("references", ()):
            name, subject, version = (reference.get(key) for key in ("name", "subject", "version"))
            if name in types:
                continue
            found = self._ask("GET", f"/subjects/{quote(str(subject), safe='')}/versions/{version}")
            if found is None:
                raise self._no_registry(f"lacks version {version} of {subject!r}, which a schema refers to")
            types[name] = json.loads(_canonical(self._text_of(found)))
            self._collect(found, types)

    def _text_of(self, answer: dict[str, Any]) -> str:
        text = answer.get("schema")
        if not isinstance(text, str):
            raise self._no_registry("gives no schema text")
        return text

    def _away(self, error: Exception) -> RetryableError | ConfigError:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            return ConfigError(
                f"The certificate of the schema registry {self.name} is not trusted: {reason.verify_message}.",
                hint="name the authority's certificate in SSL_CERT_FILE.",
            )
        said = str(reason) or type(reason).__name__
        return RetryableError(f"The schema registry {self.name} does not answer: {said}.", hint="it is asked again.")

    def _no_registry(self, what: str) -> ConfigError:
        return ConfigError(
            f"{self.name} {what}: it does not speak as a schema registry does.", hint="correct the setting `registry`."
        )


def _without_credentials(url: str) -> tuple[str, str]:
    """The URL without user and password, and the header that carries them."""
    fault = ConfigError(
        "The setting `registry` is no URL of a schema registry (it may hold a password and is not shown).",
        hint="write https://host:port, with user:password@ in front of the host where it asks for them "
        "(%-encode what is not a letter or digit), or the path of a folder.",
    )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise fault from None  # its text would show the password
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise fault
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    shown = f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path.rstrip('/')}"
    if parts.username is None:
        return shown, ""
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return shown, f"Basic {b64encode(pair.encode()).decode()}"


def _error_of(error: HTTPError) -> tuple[int, str]:
    """The registry's own code and message."""
    try:
        body = json.loads(error.read(ANSWER_BYTES_MAX))
        return int(body["error_code"]), str(body["message"])
    except (ValueError, KeyError, TypeError, OSError, HTTPException):
        return 0, str(error.reason)


def _canonical(text: str) -> str:
    try:
        return canonical(json.loads(text))
    except ValueError:
        return text
