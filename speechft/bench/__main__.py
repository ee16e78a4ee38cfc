"""`python -m speechft.bench`, which `scripts/bench` calls."""

from __future__ import annotations

import sys

from speechft.bench.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
