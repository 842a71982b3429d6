"""Counts words: `kstate run operators.word_count:job` reads topic `lines` and writes topic `word-counts`."""

from kstate import Job
from operators.word_count.operators import Count, Split

job = Job("word-count", [Split, Count])
"""Every occurrence of a word is answered with its count so far."""
