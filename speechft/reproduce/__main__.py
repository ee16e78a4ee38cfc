"""`python -m speechft.reproduce`, which `scripts/reproduce` calls."""

from __future__ import annotations

import sys

from speechft.reproduce.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
