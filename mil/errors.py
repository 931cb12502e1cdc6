"""Errors of ``mil``; each message says what is wrong, what was found, and the remedy.

SarcomilError (``features.errors``)
└── MilError
    ├── CohortError       the table does not join to the bags, or cannot carry the requested folds
    ├── LeakageError      a reported case would be judged by a model that has seen it
    ├── FitError          a model cannot be fitted or loaded
    │   └── UnknownModel  no model, method or class has this name; an ``UnknownName`` too
    ├── RunError          a run folder is missing, incomplete or inconsistent
    │   └── NotInRun      a run has no such model; an ``UnknownName`` too
    ├── PredictionsError  a table of predictions is missing, malformed or inconsistent
    ├── ProtocolError     a published study is not known, or does not suit the cohort
    └── FetchError        a public service does not answer, or files of it cannot be fetched
"""

from features.errors import SarcomilError, UnknownName


class MilError(SarcomilError):
    """What is wrong with a cohort, a model, a run or its predictions."""


class CohortError(MilError):
    """The table does not join to the bags, or cannot carry the requested folds."""


class LeakageError(MilError):
    """A reported case would be judged by a model that has seen it."""


class FitError(MilError):
    """A model cannot be fitted or loaded."""


class UnknownModel(FitError, UnknownName):
    """No model, explanation method or class has this name, or a model is named twice."""


class RunError(MilError):
    """A run folder is missing, incomplete or inconsistent."""


class NotInRun(RunError, UnknownName):
    """A run has no model of this name."""


class PredictionsError(MilError):
    """A table of predictions is missing, malformed or inconsistent."""


class ProtocolError(MilError):
    """A published study is not known, or does not suit the cohort."""


class FetchError(MilError):
    """A public service does not answer as it should, or its files cannot be fetched."""
