"""One file per suite; each has a function ``run(settings)`` that returns a Table."""
