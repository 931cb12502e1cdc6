"""The concepts of a finished cross-validation: find them, measure them and write their page."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mil.concepts.find import Concepts, find_concepts
from mil.concepts.page import write_concepts
from mil.errors import CohortError, RunError
from mil.evaluation.classification.evaluate import evaluate
from mil.evaluation.classification.results import ModelResult
from mil.runs.run import Run


@dataclass(frozen=True, kw_only=True)
class RunConcepts:
    """Concepts of a run, how well they diagnose, and where they were written.

    Attributes:
        concepts: the clusters, their shares and weights.
        result: of the shares alone, out of fold.
        page: the HTML page; tables lie beside it.
    """

    concepts: Concepts
    result: ModelResult
    page: Path

    def __repr__(self) -> str:
        """How many cases the concepts alone call rightly, and where the page is."""
        return f"RunConcepts({self.result.correct:.4g} of {self.result.n} cases right; {self.page})"


def write_run_concepts(
    run: Run,
    folder: Path,
    *,
    files: Mapping[str, Path],
    n_concepts: int = 12,
    seed: int = 0,
) -> RunConcepts:
    """Find the concepts of a run's cohort and write their page and tables.

    Args:
        run: a finished cross-validation on classes, with bags of one backbone.
        folder: for the page and its tables.
        files: the available slide files, by slide.
        n_concepts: number of clusters.
        seed: of the sampled tiles and the initial centres.

    Raises:
        RunError: the run is of another kind.
        CohortError: there are fewer than 2 concepts, fewer tiles than concepts, or a fold lacks a class.
    """
    if n_concepts < 2:
        raise CohortError(f"n_concepts is {n_concepts}. Use 2 or more.")
    if not run.task.has_classes or run.settings.finetunes:
        raise RunError(
            f"{run.path}: concepts need classes, and bags by one backbone. Give a cross-validation on labels "
            "without fine-tuning."
        )
    concepts = find_concepts(run.cohort(), run.folds, n_concepts=n_concepts, seed=seed)
    page = write_concepts(folder, concepts, files, title=run.title, random=run.random_backbone)
    [result] = evaluate(concepts.predictions).models
    return RunConcepts(concepts=concepts, result=result, page=page)
