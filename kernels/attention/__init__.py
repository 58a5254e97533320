"""Self-attention over packed sentences."""
