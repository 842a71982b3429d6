"""Counts words: `kstate run operators.word_count:job` reads topic `lines` and writes topic `word-counts`."""

from kstate import Job
from operators.word_count.operators import Count, Split

job = Job("word-count", [Split, Count])
"""Every 30 seconds of event time, each word that occurred and how often."""
