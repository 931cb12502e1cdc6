"""Whether the cases of a table can carry the folds, and how well anything will be known."""

from collections import Counter
from collections.abc import Collection, Sequence

from features.summary import Summary, listed, tally
from mil.data.case import Row
from mil.data.splits import split_cases
from mil.data.table import split_train_test
from mil.errors import MilError
from mil.evaluation.intervals import newcombe_auc, wilson
from mil.settings import SplitSettings

LIKELY_ACCURACY, LIKELY_AUC = 0.7, 0.8  # at which the width of intervals is told


def of_cases(said: Summary, rows: Sequence[Row], ready: Collection[str], wanted: str) -> None:
    """Classes, folds, and how well anything will be known.

    Args:
        said: is added to.
        rows: of the table.
        ready: the slides that can be used.
        wanted: the folds meant, as ``mil.settings.SplitSettings`` takes them.

    Raises:
        CohortError: a case has slides with split=test and slides without.
    """
    rows, held = split_train_test(rows)
    if held:
        kept = len({row.case for row in held})
        said.facts["kept aside"] = (
            f"{kept} cases with split=test, for `mil external`; not counted below"
        )
    unlabelled = [row.slide for row in rows if not row.label]
    if unlabelled:
        said.warnings.append(
            f"No label: {listed(unlabelled)}. Fill the label column; `mil crossval` refuses such rows."
        )
    cases = {row.case: row for row in rows if row.label}
    usable = {row.case: row for row in rows if row.label and row.slide in ready}
    slides = Counter(Counter(row.case for row in rows).values())
    per_class = Counter(row.label for row in usable.values())
    classes = sorted({row.label for row in cases.values()})
    said.facts["cases"] = (
        f"{len({row.case for row in rows})}, of which {len(usable)} have a label and a slide that is ready: "
        + (tally({name: per_class[name] for name in classes}) or "none")
    )
    said.facts["slides per case"] = tally(dict(sorted(slides.items())))
    if not usable:
        return
    kinds = dict.fromkeys([wanted, str(min(per_class.values())), "loo", "site"])
    folds = {kind: _folds(kind, list(usable.values())) for kind in kinds if kind != "1"}
    said.facts["folds"] = "; ".join(
        f"--folds {kind}: {told if possible else 'not possible'}"
        for kind, (possible, told) in folds.items()
    )
    possible, told = folds[wanted]
    if not possible:
        said.warnings.append(f"--folds {wanted} is not possible. {told}")
    scarce = {name: per_class[name] for name in classes if per_class[name] < 2}
    if scarce:
        said.warnings.append(
            f"Fewer than 2 usable cases: {tally(scarce)}. Such a class cannot be learnt and tested; add "
            "cases, merge classes, or leave it out."
        )
    if len(per_class) == 1:
        said.warnings.append("All usable cases are of one class; diagnosis needs two or more.")
    said.facts["to expect"] = _certainty(list(per_class.values()))


def _certainty(class_counts: Sequence[int]) -> str:
    """How wide the intervals of a result will be at best."""
    n = sum(class_counts)
    limits = wilson(LIKELY_ACCURACY * n, n)
    told = (
        f"with {n} cases, an accuracy of {_dotted(LIKELY_ACCURACY)} will be known to lie between "
        f"{_dotted(limits.low)} and {_dotted(limits.high)} (95 %, Wilson)"
    )
    if len(class_counts) == 2:
        limits = newcombe_auc(LIKELY_AUC, *class_counts)
        told += (
            f", an AUC of {_dotted(LIKELY_AUC)} between {_dotted(limits.low)} and "
            f"{_dotted(limits.high)} (Newcombe)"
        )
    return told


def _folds(kind: str, cases: Sequence[Row]) -> tuple[bool, str]:
    """Whether such folds can be made of the cases, and what they are or why not."""
    try:
        folds = split_cases(
            [row.case for row in cases],
            [row.label for row in cases],
            [row.site for row in cases],
            SplitSettings(folds=kind),
        )
    except MilError as error:
        return False, str(error)
    sizes = [len(fold.test) for fold in folds]
    span = str(sizes[0]) if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
    return True, f"{len(folds)} folds that test {span} each"


def _dotted(share: float) -> str:
    return f"{share:.2f}".removeprefix("0")
