"""Philox4x32-10: random bits from a counter."""
