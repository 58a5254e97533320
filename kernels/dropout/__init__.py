"""Dropout by counter."""
