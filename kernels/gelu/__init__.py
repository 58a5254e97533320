"""Bias and GELU."""
