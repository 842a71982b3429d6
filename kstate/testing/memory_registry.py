"""A schema registry in memory: ids from 1 in order of registration, nothing is refused."""

from __future__ import annotations

from kstate.errors import RetryableError


class MemoryRegistry:
    """Satisfies `interfaces.Registry`; `away` makes it fail as a service that does not answer."""

    def __init__(self) -> None:
        self.name = "in memory"
        self.texts: list[str] = []
        """Id 1 first."""
        self.asked: list[int] = []
        """The ids that were asked for, 0 for a registration."""
        self.away = False

    def schema(self, schema_id: int) -> str | None:
        """The text of a schema, None for an id that is not there."""
        self._ask(schema_id)
        return self.texts[schema_id - 1] if 0 < schema_id <= len(self.texts) else None

    def register(self, subject: str, schema: str) -> int:  # noqa: ARG002 (one list for all subjects)
        """The id of a schema, the same for every subject."""
        self._ask(0)
        if schema not in self.texts:
            self.texts.append(schema)
        return self.texts.index(schema) + 1

    def _ask(self, number: int) -> None:
        if self.away:
            raise RetryableError("The schema registry in memory was told to be away.", hint="let it come back.")
        self.asked.append(number)
