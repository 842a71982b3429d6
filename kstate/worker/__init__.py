"""The data plane: what a worker process does, in flow order (source, decode, ownership, process, epoch)."""
