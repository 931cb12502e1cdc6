"""Options of the commands that read a run: where its bag store and its table are now."""

MOVED_STORE = {"help": "Where the run's bag store is now, if it has moved; remembered."}
MOVED_COHORT = {"help": "Where the run's cohort table is now, if it has moved; remembered."}
