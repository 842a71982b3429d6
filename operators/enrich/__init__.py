"""Orders with names: `kstate run operators.enrich:job` joins topics `orders` and `customers` into `enriched-orders`."""

from kstate import Job
from operators.enrich.operators import Enrich

job = Job("enrich", [Enrich])
"""Every order once, with name and city of its customer as soon as they are known."""
