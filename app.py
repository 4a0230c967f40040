"""Opens the page: python app.py [--host 127.0.0.1] [--port 7860] [--home DIR]; --help tells the rest.

Comes in: where to listen, where runs are kept, who is let in.  Goes out: the page's address, once it is up.
"""

from __future__ import annotations

import sys

from tuning.cli import main

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
