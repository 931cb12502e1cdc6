"""The columns of the table that the clinical models of a run read, and what their reader should know."""

from collections.abc import Sequence

from features.columns.names import is_follow_up
from features.progress import Notify
from features.summary import listed
from mil.data.cohort import Cohort
from mil.data.columns import note_calendar, odd_cells
from mil.data.encoding import (
    clinical_columns,
    describe_revealing,
    readable,
    revealing_columns,
)
from mil.heads.registry import reads_table


def clinical_facts(
    cohort: Cohort, models: Sequence[str], columns: Sequence[str], notify: Notify
) -> dict[str, object]:
    """What run.json says of the columns that a clinical model reads; notifies of them."""
    if not reads_table(models):
        return {}
    # Of all cases, to inform the reader only: each fold learns an encoding of its own.
    encoding = readable(cohort.cases, columns)
    names = [column.name for column in encoding.columns]
    notify(f"The clinical model reads {', '.join(names)}.")
    known = cohort.cases[0].known_at_diagnosis
    late = (
        [] if columns else [n for n in cohort.cases[0].other if is_follow_up(n) and n not in known]
    )
    if late:
        notify(f"The clinical model leaves out {listed(late)}: known only from the follow-up.")
    if taken := [name for name in names if name in known]:
        notify(f"Used because the study declares them known at diagnosis: {listed(taken)}.")
    for name, reason in encoding.left_out:
        notify(f"The clinical model leaves out {name}: it {reason}.")
    for note in odd_cells(cohort.cases, names):
        notify(note)
    for note in note_calendar(cohort.cases, names):
        notify(note)
    for name in revealing_columns(cohort.cases, names):
        notify(describe_revealing(name, cohort.cases))
    return {"clinical": {case.name: {n: case.other[n] for n in names} for case in cohort.cases}}


def clinical_values(
    cohort: Cohort, models: Sequence[str], columns: Sequence[str]
) -> dict[str, dict[str, str]]:
    """Clinical columns by case, where columns are named or a model reads them; else empty."""
    if not (columns or reads_table(models)):
        return {}
    names = clinical_columns(cohort.cases, columns)
    return {case.name: {name: case.other[name] for name in names} for case in cohort.cases}
