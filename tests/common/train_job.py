"""The train verb as a module, for torchrun."""

import sys

from common.cli import run

if __name__ == "__main__":
    sys.exit(run("common", "train"))
