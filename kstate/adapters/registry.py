"""Schema registries: where the ids in front of `format="confluent"` records come from, a folder or a service."""

from __future__ import annotations

from kstate.adapters.registry_folder import FolderRegistry
from kstate.adapters.registry_http import HttpRegistry
from kstate.interfaces import Registry


def open_registry(place: str) -> Registry | None:
    """The registry that the setting `registry` names: a URL or a folder; None when it names none. Asks nothing yet."""
    if not place:
        return None
    return HttpRegistry(place) if "://" in place else FolderRegistry(place)
