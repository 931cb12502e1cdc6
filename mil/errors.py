"""Errors of ``mil``; each message says what, what was got, and the remedy.

MilError
├── CohortError    the table does not join to the bags, or cannot carry the folds asked for
├── LeakageError   a reported case would be judged by something that has seen it
├── FitError       a model cannot be fitted or loaded
├── RunError       a run folder or table of predictions is missing, incomplete or inconsistent
└── ProtocolError  a published study is not known, or does not suit the cohort
"""


class MilError(Exception):
    """Base of every error a user can mend in ``mil``."""


class CohortError(MilError):
    """The table does not join to the bags, or cannot carry the folds asked for."""


class LeakageError(MilError):
    """A reported case would be judged by something that has seen it."""


class FitError(MilError):
    """A model cannot be fitted or loaded."""


class RunError(MilError):
    """A run folder or table of predictions is missing, incomplete or inconsistent."""


class ProtocolError(MilError):
    """A published study is not known, or does not suit the cohort."""
