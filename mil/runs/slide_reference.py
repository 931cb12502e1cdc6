"""What a run learnt from, to compare new slides with."""

from features.bags.bag import read_bag
from features.errors import FeaturesError
from mil.errors import MilError, RunError
from mil.likeness.fold_reference import FoldReference, FoldSlides
from mil.likeness.reference import SlideReference, load_reference
from mil.runs.facts import verified
from mil.runs.files import REFERENCE
from mil.runs.run import Run


def reference_of_run(run: Run) -> tuple[SlideReference | None, str]:
    """The reference of a run, from its file or from its bags; and why there is none, else empty."""
    if (run.path / REFERENCE).is_file():
        return load_reference(verified(run, run.path / REFERENCE)).hidden(), ""
    try:
        bags = [run.bag(slide) for slide in run.cases]
        if not bags:
            raise RunError(f"{run.path} does not say which slides it learnt from.")
    except (MilError, FeaturesError) as error:
        return None, f"Not known whether new slides are like those the model learnt from: {error}"
    return SlideReference.of_bags(bags, list(run.cases.values())).hidden(), ""


def fold_reference_of_run(run: Run) -> tuple[FoldReference | None, str]:
    """The reference of a run that fine-tuned in each fold; and why there is none, else empty."""
    cases = list(run.cases.values())
    parts, facts = [], None
    try:
        for fold in run.folds:
            bags = [read_bag(run.fold_store(fold) / f"{slide}.h5") for slide in run.cases]
            facts = facts or SlideReference.of_bags(bags, cases)
            parts.append(FoldSlides.of_bags(fold, bags, cases))
    except (MilError, FeaturesError) as error:
        return None, f"Not known whether new slides are like those the model learnt from: {error}"
    if facts is None:
        return None, f"{run.path} does not say which slides it learnt from."
    return FoldReference(facts, tuple(parts)), ""
