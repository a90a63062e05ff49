"""Delivery of requests, from their acceptance to their outcome, for all protocols."""
