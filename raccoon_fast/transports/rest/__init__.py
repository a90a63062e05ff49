"""REST: one POST per request, over HTTP/1.1 connections of our own or over httpx."""
