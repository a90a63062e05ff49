"""`raccoon-fast doctor`: what works between here and a server, what does not, and what to do about it."""

from raccoon_fast.cli.doctor.command import run

__all__ = ["run"]
