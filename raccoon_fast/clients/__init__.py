"""RestClient, WebSocketClient, GrpcClient and their async twins: one request at a time, as the caller passes it."""
