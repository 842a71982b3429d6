"""Example jobs, one package each; they import kstate's public names only. `records` is generated from `schemas/`."""
