"""`python -m speechft` is the command `speechft`."""

from speechft.cli.main import main

raise SystemExit(main())
