"""Most visited pages: `kstate run operators.top_k:job` reads topic `clicks` and writes topic `top-pages`."""

from kstate import Job
from operators.top_k.operators import CountVisits, RankPages

job = Job("top-k", [CountVisits, RankPages])
"""Every 30 seconds of event time, the ten pages of each language that were opened most often."""
