"""Payments once: `kstate run operators.dedup:job` reads topic `payments` and writes topic `payments-once`."""

from kstate import Job
from operators.dedup.operators import Dedup

job = Job("dedup", [Dedup])
"""Of payments with the same id within a week the first one."""
