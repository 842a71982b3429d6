"""The control plane: who is there, who owns what, and what happens when a worker dies."""
