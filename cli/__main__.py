"""``python -m cli`` is the ``mil`` command."""

from cli.main import main

main()
