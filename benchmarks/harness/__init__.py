"""What all suites share: child processes, random batches, floors, tables and pictures."""
