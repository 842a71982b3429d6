"""`python -m kstate` is the command `kstate`."""

from kstate.cli.main import app

app()
