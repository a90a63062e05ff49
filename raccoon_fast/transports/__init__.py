"""Transports, one package per protocol: they send a payload and return its answer or error. No retries here."""
