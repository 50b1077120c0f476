"""Entry point of `python -m trueprob`: the command line."""

import sys

from trueprob.cli.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
