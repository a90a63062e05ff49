"""gRPC: unary calls over HTTP/2 (RFC 9113) of our own, or over the user's own channel."""
