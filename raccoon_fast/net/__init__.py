"""Connects to a server: address, DNS, proxy, TCP and TLS. Knows no protocol of Raccoon."""
