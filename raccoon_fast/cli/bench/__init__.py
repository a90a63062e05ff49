"""`raccoon-fast bench`: load on a server at a rate of the user's choosing, and how long it takes to acknowledge it."""

from raccoon_fast.cli.bench.command import run

__all__ = ["run"]
