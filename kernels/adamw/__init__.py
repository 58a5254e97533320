"""AdamW over flat buffers, and the global gradient norm."""
