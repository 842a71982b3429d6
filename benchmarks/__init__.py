"""Benchmarks: each prints a table, writes JSON into benchmarks/results/, and verifies what it measured."""
