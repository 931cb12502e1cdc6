"""Runs the command in processes forked from one that has imported all it needs: that takes seconds each time.

Reads one JSON object a line: arguments, cwd, env, and the files that take what is printed. Answers with the
exit status.
"""

import atexit
import gc
import importlib
import json
import math
import os
import runpy
import sys
import threading

NEEDED = (
    "cli.main", "features.extraction.extract", "mil.learning.crossval", "mil.finetune.per_fold",
    "mil.report.gather",
)  # fmt: skip


def run(arguments, cwd, env, out, err):
    """Become what `python -m cli ARGUMENTS` would be."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for stream, file in ((0, os.devnull), (1, out), (2, err)):
        opened = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, stream)
        os.close(opened)
    sys.argv[1:] = arguments
    runpy.run_module("cli", run_name="__main__", alter_sys=True)


def status_of(request):
    """The exit status, as the interpreter would end with it."""
    try:
        run(**request)
    except SystemExit as ended:
        return ended.code or 0
    except BaseException:  # noqa: BLE001
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


if __name__ == "__main__":
    for name in NEEDED:
        importlib.import_module(name)
    # The other cores are other tests': no processes are started that a command does not ask for.
    sys.modules["mil.learning.parallel"].START_S = math.inf
    gc.freeze()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            status = status_of(json.loads(line))
            threading._shutdown()
            atexit._run_exitfuncs()
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(status)  # to take all modules down would copy all memory
        _, status = os.waitpid(child, 0)
        os.write(1, b"%d\n" % os.waitstatus_to_exitcode(status))
