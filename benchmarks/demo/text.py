"""The demo's input: real English text."""

from __future__ import annotations


def python_topics() -> tuple[str, ...]:
    """The lines of Python's built-in help on keywords and topics, which comes with every CPython."""
    from pydoc_data.topics import topics

    return tuple(line for text in topics.values() for line in text.splitlines() if line.strip())
