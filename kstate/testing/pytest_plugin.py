"""pytest fixtures for jobs on kstate."""
