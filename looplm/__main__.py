"""`python -m looplm` is `looplm`."""

import sys

from looplm.cli import main

sys.exit(main())
