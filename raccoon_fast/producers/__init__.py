"""Producer and AsyncProducer: accept events at a high rate and deliver them in batches."""
