"""`python -m g8os.cli` is `g8`."""

import sys

from . import main

sys.exit(main())
