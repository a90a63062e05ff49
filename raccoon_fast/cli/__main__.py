"""`python -m raccoon_fast.cli` is `raccoon-fast`."""

import sys

from raccoon_fast.cli.command import main

sys.exit(main())
