"""``python -m sarcomil`` is the ``mil`` command, for ``torchrun`` and where no script is on the path."""

import os
import sys

if __name__ == "__main__":
    # Python looks in the current folder first, where a file may have the name of a library or of the command.
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - loads nothing
    if not sys.flags.safe_path and sys.path[0] != home:
        del sys.path[0]

    from cli.main import main

    main()
