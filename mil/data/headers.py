"""What the columns of every kind of table are called, and how a header is matched to these names.

Names are compared without regard to capitals, blanks, underscores, dots and dashes.
"""

from collections.abc import Iterable, Mapping, Sequence

from features.columns.names import CASE, SLIDE
from features.columns.spelling import plain_header
from mil.errors import CohortError

Names = Mapping[str, Sequence[str]]  # of a column, by what it holds

COHORT: Names = {
    "case": CASE,
    "slide": SLIDE,
    "label": ("label",),
    "site": ("site",),
    "mpp": ("mpp",),
    "split": ("split",),
}
COHORT_ELSE: Names = {  # of registries and portals; where there is no other
    "case": ("bcr_patient_barcode", "case_submitter_id", "submitter_id"),
    "slide": ("sample_id",),
}
SERIES: Names = {  # of CT and MRI
    "case": CASE,
    "timepoint": ("timepoint", "time point", "visit", "study"),
    "modality": ("modality", "sequence"),
    "path": ("path", "file", "image", "folder"),
    "series": ("series", "series_uid", "seriesinstanceuid"),
    "mask": ("mask", "segmentation", "rtstruct"),
    "roi": ("roi", "region", "structure"),
}
PREDICTIONS: Names = {
    "case": (*CASE, "bcr_patient_barcode", "case_submitter_id", "submitter_id"),
    "slide": SLIDE,
    "label": ("label", "y", "y_true", "true_label", "target"),
    "model": ("model",),
    "repeat": ("repeat",),
    "fold": ("fold",),
}
FOLLOW_UP: Names = {  # beside a predicted risk; as cBioPortal and the TCGA-CDR write, too
    "time": (
        "time",
        "os_months",
        "os_days",
        "os.time",
        "survival_time",
        "time_months",
        "time_days",
    ),
    "event": ("event", "os_status", "os", "vital_status", "status"),
    "risk": ("risk", "risk_score"),
}
RADIOMICS: Names = {  # in the order of preference: tools write several of these side by side
    "case": (
        *CASE,
        "subject",
        "subject_id",
        "sample_name",
        "id",
        "info_patientid",
        "info_patientname",
    ),
    "modality": ("modality", "sequence", "image_modality"),
}


KNOWN = {
    plain_header(alias)
    for names in (COHORT, COHORT_ELSE, SERIES, PREDICTIONS, FOLLOW_UP, RADIOMICS)
    for aliases in names.values()
    for alias in aliases
}


def n_known(cells: Iterable[str]) -> int:
    """How many cells of a line are names that a column of some table has."""
    return sum(plain_header(cell) in KNOWN for cell in cells)


def match_columns(
    source: object, header: Iterable[str], names: Names, error: type[Exception] = CohortError
) -> dict[str, str]:
    """The columns of a file by what they hold, in the order of the names; those that it lacks are left out.

    Args:
        source: of the header, for messages.
        header: the columns of the file.
        names: what columns are called.
        error: that is raised.

    Raises:
        Exception: of the given kind: two columns hold the same.
    """
    known = {plain_header(alias): name for name, aliases in names.items() for alias in aliases}
    holding = ((known.get(plain_header(column)), column) for column in header)
    columns = unique_columns(source, ((name, column) for name, column in holding if name), error)
    return {name: columns[name] for name in names if name in columns}


def unique_columns(
    source: object, columns: Iterable[tuple[str, str]], error: type[Exception] = CohortError
) -> dict[str, str]:
    """Columns by what they hold.

    Raises:
        Exception: of the given kind: two columns hold the same.
    """
    unique: dict[str, str] = {}
    for name, column in columns:
        if name in unique:
            raise error(
                f"{source}: columns {unique[name]!r} and {column!r} both mean {name}. Remove one."
            )
        unique[name] = column
    return unique


def matches_any(column: str, aliases: Sequence[str]) -> bool:
    """Whether a column is called by one of some names."""
    return plain_header(column) in map(plain_header, aliases)


def first_column(header: Iterable[str], aliases: Sequence[str]) -> str | None:
    """The column of the first of some names that there is; None if there is none."""
    by_name = {plain_header(column): column for column in reversed(list(header))}
    return next((by_name[n] for n in map(plain_header, aliases) if n in by_name), None)
