"""The command `raccoon-fast`."""

from raccoon_fast.cli.command import main

__all__ = ["main"]
