"""`raccoon-fast doctor`: checks the connection to a server, and says how to fix what fails."""

from raccoon_fast.cli.doctor.command import run

__all__ = ["run"]
