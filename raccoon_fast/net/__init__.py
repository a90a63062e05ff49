"""How a server is reached: its address, the way there, and the connection."""
