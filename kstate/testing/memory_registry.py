"""A schema registry in memory, so that tests of jobs with framed topics need none."""

from __future__ import annotations


class MemoryRegistry:
    """Satisfies `interfaces.Registry`; one schema has one id, and nothing is refused."""

    name = "memory"

    def __init__(self) -> None:
        self._texts: list[str] = []

    def schema(self, schema_id: int) -> str | None:
        return self._texts[schema_id - 1] if 0 < schema_id <= len(self._texts) else None

    def register(self, subject: str, schema: str) -> int:  # noqa: ARG002 (a schema has the same id everywhere)
        if schema not in self._texts:
            self._texts.append(schema)
        return self._texts.index(schema) + 1
