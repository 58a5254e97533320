"""The command line, ``minitl``: so far ``minitl doctor``, which looks at the machine.

Data goes to standard output, progress and errors to standard error. Exit codes: 0 success, 1 failure, 2 wrong usage,
128 and the signal's number when interrupted.
"""
