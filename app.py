"""Opens the page: python app.py [--host 127.0.0.1] [--port 7860] [--home DIR].

Comes in: where to listen and where runs are kept.  Goes out: the address of the page, printed when it is up.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description="Tuning Fork: experiment with fine-tuning settings in the browser.")
    parser.add_argument("--host", default="127.0.0.1", help="127.0.0.1 is reached from this machine only")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--home", type=Path, default=None, help="where runs are kept")
    given = parser.parse_args()
    print("Tuning Fork is starting…", flush=True)

    from tuning.errors import TuningError  # after the line above: the imports take a few seconds
    from tuning.ui.page import launch

    try:
        launch(given.host, given.port, given.home)
    except TuningError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
