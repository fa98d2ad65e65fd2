"""`python -m woodfisher.size`: woodfisher/studies/size.py under its short name."""

import sys

from woodfisher.studies.size import main

if __name__ == "__main__":
    sys.exit(main())
