"""Counts words as they come: `kstate run operators.running_count:job` reads `lines` and writes `running-counts`."""

from kstate import Job
from operators.running_count.operators import Count
from operators.word_count.operators import Split

job = Job("running-count", [Split, Count])
"""Every occurrence of a word is answered with its count so far."""
