"""`raccoon-fast bench`: sends load at a given rate to a server, and measures its acknowledgements."""

from raccoon_fast.cli.bench.command import run

__all__ = ["run"]
