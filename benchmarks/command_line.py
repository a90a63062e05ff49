"""Command-line options shared by the benchmark programs that write results."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["RESULTS", "Parser"]

RESULTS = Path(__file__).parent / "results"


class Parser(argparse.ArgumentParser):
    """A parser with the options --quick and --output.

    Args:
        doc: The program's docstring.
        quick: The help text of --quick.
    """

    def __init__(self, doc: str | None, quick: str) -> None:
        super().__init__(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
        self.add_argument("--quick", action="store_true", help=quick)
        self.add_argument("--output", type=Path, default=RESULTS, help="folder for the results; created if missing")

    def parse(self) -> argparse.Namespace:
        """The arguments. Ends the program if they are invalid or would store quick figures as real ones."""
        chosen = self.parse_args()
        if chosen.quick and chosen.output == RESULTS:
            self.error("figures of a quick run are not usable: choose another folder with --output")
        chosen.output.mkdir(parents=True, exist_ok=True)
        return chosen
