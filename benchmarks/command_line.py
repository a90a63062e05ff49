"""What the programs here that write results have in common on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["RESULTS", "Parser"]

RESULTS = Path(__file__).parent / "results"


class Parser(argparse.ArgumentParser):
    """With --quick and --output.

    Args:
        doc: The program's docstring.
        quick: What --quick leaves out.
    """

    def __init__(self, doc: str | None, quick: str) -> None:
        super().__init__(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
        self.add_argument("--quick", action="store_true", help=quick)
        self.add_argument("--output", type=Path, default=RESULTS, help="folder for the results; made if need be")

    def parse(self) -> argparse.Namespace:
        """The arguments; ends the program where they are wrong, or would let quick figures pass for real ones."""
        chosen = self.parse_args()
        if chosen.quick and chosen.output == RESULTS:
            self.error("quick figures mean nothing: say where they go with --output")
        chosen.output.mkdir(parents=True, exist_ok=True)
        return chosen
