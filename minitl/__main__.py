"""``python -m minitl`` is the command ``minitl``."""

from minitl.cli.main import main

main()
