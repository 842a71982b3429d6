"""`make chaos`: see `tests.support.chaos_run`."""

import sys

from tests.support.chaos_run import main

if __name__ == "__main__":
    sys.exit(main())
