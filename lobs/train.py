"""L-OBS: the dense networks. `--list` shows the cells, `--help` the flags."""

import sys

from common.running.cli import run
from lobs.experiments import FIGURES, TABLES

if __name__ == "__main__":
    sys.exit(run("lobs", "train", TABLES, FIGURES))
