"""NAP: the final fine-tuning of the pruned cells. `--list` shows the cells, `--help` the flags."""

import sys

from common.running.cli import run
from nap.experiments import BARE, FIGURES, TABLES

if __name__ == "__main__":
    sys.exit(run("nap", "finetune", TABLES, FIGURES, base=BARE))
