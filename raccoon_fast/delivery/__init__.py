"""What happens to a request between its hand-over and its outcome, whatever the protocol."""
