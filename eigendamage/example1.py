"""`python -m eigendamage.example1`: eigendamage/studies/example1.py under its short name."""

import sys

from eigendamage.studies.example1 import main

if __name__ == "__main__":
    sys.exit(main())
