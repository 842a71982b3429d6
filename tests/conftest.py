"""For all tests: how long an example takes says nothing on a shared machine, so hypothesis sets no deadline."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("kstate", settings.default, deadline=None)
settings.load_profile("kstate")
