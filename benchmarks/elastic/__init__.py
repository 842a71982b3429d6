"""What moves, failures and recovery cost the keys that are concerned, and all others: `make bench-elastic`."""
