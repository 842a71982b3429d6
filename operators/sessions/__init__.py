"""Sessions of users: `kstate run operators.sessions:job` reads topic `clicks` and writes topic `sessions`."""

from kstate import Job
from operators.sessions.operators import Sessions

job = Job("sessions", [Sessions])
"""One record per session: clicks of a user with no pause of half an hour between them."""
