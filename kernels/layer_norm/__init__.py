"""Residual add, dropout and layer normalisation."""
