"""Whether the cases of a table can carry the folds, and how precise any result will be."""

from collections import Counter
from collections.abc import Collection, Sequence

from features.summary import Summary, listed, tally
from mil.data.case import Row, note_unread
from mil.data.columns import note_declared, note_times, odd_cells
from mil.data.patients import note_blocks
from mil.data.splits import split_cases
from mil.data.table import split_train_test
from mil.data.twins import note_twins
from mil.errors import CohortError, MilError
from mil.evaluation.auc_intervals import newcombe_auc
from mil.evaluation.intervals import wilson
from mil.settings import SplitSettings
from mil.tasks.task import Task

LIKELY_ACCURACY, LIKELY_AUC = 0.7, 0.8  # at which the width of intervals is stated


def summarise_cases(
    summary: Summary,
    rows: Sequence[Row],
    ready: Collection[str],
    requested: str,
    task: Task,
) -> None:
    """Add classes, folds and the expected precision to a summary.

    Args:
        summary: is added to.
        rows: of the table, labelled by the task.
        ready: the slides that can be used.
        requested: the folds, as ``mil.settings.SplitSettings`` takes them.
        task: what is asked of a case.

    Raises:
        CohortError: a case has slides with split=test and slides without.
    """
    rows, test = split_train_test(rows)
    if test:
        summary.facts["kept aside"] = (
            f"{len({row.case for row in test})} cases with split=test, for external validation; not counted "
            "below"
        )
    unlabelled = [row.slide for row in rows if not row.label]
    if unlabelled:
        summary.warnings.append(
            f"No {task.outcome}: {listed(unlabelled)}. Fill the column in; a cross-validation refuses such "
            f"rows. {note_unread(rows)}".strip()
        )
    if blocks := note_blocks(row.case for row in rows):
        summary.warnings.append(blocks)
    summary.warnings.extend(
        [*note_twins(rows), *odd_cells(rows), *note_times(rows), *note_declared(rows)]
    )
    labelled = {row.case: row for row in rows if row.label}
    usable = {row.case: row for row in rows if row.label and row.slide in ready}
    slides = Counter(Counter(row.case for row in rows).values())
    per_class = Counter(row.label for row in usable.values())
    classes = sorted({row.label for row in labelled.values()})
    summary.facts["cases"] = (
        f"{len({row.case for row in rows})}, of which {len(usable)} have the {task.outcome} and a slide "
        "that is ready: " + (tally({name: per_class[name] for name in classes}) or "none")
    )
    summary.facts["slides per case"] = tally(dict(sorted(slides.items())))
    if usable:
        _summarise_folds(summary, list(usable.values()), per_class, requested, task)
        _warn_of_scarce(summary, {name: per_class[name] for name in classes}, task)
        if task.has_classes:
            summary.facts["to expect"] = _precision(list(per_class.values()))


def _summarise_folds(
    summary: Summary,
    cases: Sequence[Row],
    per_class: Counter[str],
    requested: str,
    task: Task,
) -> None:
    kinds = dict.fromkeys([requested, str(min(per_class.values())), "loo", "site"])
    folds = {kind: _try_folds(kind, cases, task) for kind in kinds if kind != "1"}
    summary.facts["folds"] = "; ".join(
        f"folds={kind}: {text if possible else 'not possible'}"
        for kind, (possible, text) in folds.items()
    )
    possible, text = folds[requested]
    if not possible:
        summary.warnings.append(f"folds={requested} is not possible. {text}")


def _warn_of_scarce(summary: Summary, counts: dict[str, int], task: Task) -> None:
    scarce = {name: count for name, count in counts.items() if count < 2}
    if scarce:
        summary.warnings.append(
            f"Fewer than 2 usable cases: {tally(scarce)}. Such a class cannot be both learnt and tested; add "
            "cases, merge classes, or leave it out."
        )
    try:
        task.order_classes([name for name, count in counts.items() if count], "The usable part")
    except CohortError as error:
        summary.warnings.append(str(error))


def _precision(class_counts: Sequence[int]) -> str:
    """How wide the intervals of a result will be at best."""
    n = sum(class_counts)
    limits = wilson(LIKELY_ACCURACY * n, n)
    text = (
        f"with {n} cases, an accuracy of {_dotted(LIKELY_ACCURACY)} has a 95 % interval from "
        f"{_dotted(limits.low)} to {_dotted(limits.high)} (Wilson)"
    )
    if len(class_counts) == 2:
        limits = newcombe_auc(LIKELY_AUC, *class_counts)
        text += (
            f", an AUC of {_dotted(LIKELY_AUC)} one from {_dotted(limits.low)} to "
            f"{_dotted(limits.high)} (Newcombe)"
        )
    return text


def _try_folds(kind: str, cases: Sequence[Row], task: Task) -> tuple[bool, str]:
    """Whether such folds can be made of the cases, and what they are or why not."""
    try:
        folds = split_cases(
            [row.case for row in cases],
            task.strata([row.label for row in cases], kind),
            [row.site for row in cases],
            SplitSettings(folds=kind),
            group=task.group,
        )
    except MilError as error:
        return False, str(error)
    sizes = [len(fold.test) for fold in folds]
    span = str(sizes[0]) if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
    noun = "case" if span == "1" else "cases"
    return True, f"{len(folds)} folds with {span} test {noun} each"


def _dotted(share: float) -> str:
    return f"{share:.2f}".removeprefix("0")
