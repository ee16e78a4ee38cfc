"""`python -m speechft.study`, which `scripts/study` calls."""

from __future__ import annotations

import sys

from speechft.study.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
