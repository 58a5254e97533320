"""Rows of tables by number, and their scatter-add."""
