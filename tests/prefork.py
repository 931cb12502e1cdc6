"""Becomes the command in processes that are forked where all it needs is imported: that takes seconds.

The server that forks them imports tests/preloaded.py; see `forked` in conftest.py.
"""

import atexit
import math
import os
import runpy
import sys
import threading
import types


def run(arguments, cwd, env, out, err, code=None):
    """Become what `python -m cli ARGUMENTS` would be, or `python -c CODE`."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for stream, file in ((0, os.devnull), (1, out), (2, err)):
        opened = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, stream)
        os.close(opened)
    paths = env.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [path for path in paths if path and path not in sys.path]
    sys.argv[1:] = arguments
    if code is None:
        runpy.run_module("cli", run_name="__main__", alter_sys=True)
    else:
        sys.modules["__main__"] = script = types.ModuleType("__main__")
        exec(code, vars(script))


def run_whole(**request):
    """Become the command on one core, and end as the interpreter would, but without its modules.

    To take all of them down would copy all memory.
    """
    # The other cores are other tests': no processes are started that a command does not ask for.
    sys.modules["mil.learning.parallel"].START_S = math.inf
    status = _status_of(request)
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(status)


def _status_of(request):
    """The exit status, as the interpreter would end with it."""
    try:
        run(**request)
    except SystemExit as ended:
        return ended.code or 0
    except BaseException:  # noqa: BLE001
        sys.excepthook(*sys.exc_info())
        return 1
    return 0
