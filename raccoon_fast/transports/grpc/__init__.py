"""gRPC: unary calls over a built-in HTTP/2 client (RFC 9113), or over the user's own channel."""
