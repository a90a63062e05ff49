"""WebSocket (RFC 6455): many requests in flight on one connection, answers matched by guid."""
