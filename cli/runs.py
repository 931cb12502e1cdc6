"""Options of the commands that read a run: where its bag store and its table are now."""

_PANEL = {"panel": "Moved files"}
MOVED_STORE = _PANEL | {"help": "Where the run's bag store is now, if it has moved; remembered."}
MOVED_COHORT = _PANEL | {
    "help": "Where the run's cohort table is now, if it has moved; remembered."
}
