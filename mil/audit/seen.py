"""Whether the backbone of a run has seen the cases that the run tested."""

from features.bags.bag import PIXELS
from features.recipe import learnt_part
from features.summary import Summary, listed
from mil.data.cohort import Cohort
from mil.data.names import cases_among
from mil.errors import LeakageError
from mil.learning.reserved import check_reserved


def add_seen(summary: Summary, cohort: Cohort) -> None:
    """Whether the backbone has seen a tested case, by its name or by the content of its slides."""
    try:
        check_reserved(cohort)
    except LeakageError as error:
        summary.problems.append(str(error))
    if cohort.unknown_weights:
        summary.facts["backbone"] = (
            f"not known: {cohort.unknown_weights} does not say which cases it has seen"
        )
        summary.warnings.append(
            f"Whether the backbone has seen the tested cases is not known: its weights, "
            f"{cohort.unknown_weights}, carry no list of their training cases. If they were trained on cases "
            "of this table, the results are worthless."
        )
        return
    seen = [
        case.name
        for case in cohort.cases
        if any(
            cases_among([(case.name, bag.slide)], bag.trained_on)
            or not bag.sources.isdisjoint(bag.trained_on_slides)
            for bag in case.bags
        )
    ]
    verdict = f"has seen {len(seen)} tested cases" if seen else "has not seen the tested cases"
    summary.facts["backbone"] = verdict + _compared_by(cohort)
    if seen:
        summary.problems.append(
            f"The {learnt_part(cohort.recipe)} was trained on slides of {listed(seen)}, which were tested, "
            "under these or other names. Make the run again with bags of a backbone that has not seen them."
        )


def _compared_by(cohort: Cohort) -> str:
    """By what the slides of the backbone's training are compared with those of the run."""
    if not any(bag.trained_on for bag in cohort.bags):
        return ""
    slides = {source for bag in cohort.bags for source in bag.trained_on_slides}
    if not slides:
        return (
            " (compared by the names of cases only: its weights file does not identify its slides)"
        )
    pixels = any(source.startswith(PIXELS) for source in slides)
    if pixels and all(bag.pixels_sha256 for bag in cohort.bags):
        return " (compared by name, file and pixels; a slide compressed again with loss is not recognised)"
    return " (compared by name and file only: older bags or weights do not record the pixels of their slides)"
