"""The former place of raccoon_fast.net.address, for code that still imports it from here."""

from raccoon_fast.net.address import EVENTS_PATH, Address, parse_address

__all__ = ["EVENTS_PATH", "Address", "parse_address"]
