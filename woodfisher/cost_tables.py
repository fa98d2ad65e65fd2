"""`python -m woodfisher.cost_tables`: woodfisher/studies/cost_tables.py under its short name."""

import sys

from woodfisher.studies.cost_tables import main

if __name__ == "__main__":
    sys.exit(main())
