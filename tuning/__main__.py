"""python -m tuning: see `tuning.cli`."""

from tuning.cli import main

raise SystemExit(main())
