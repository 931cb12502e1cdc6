"""A map with its measures, and the comparison of methods over a cohort."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.progress import Progress, Silent
from mil.explanation.faithfulness import (
    SIGNIFICANT,
    Curves,
    Faithfulness,
    Localisation,
    infidelity,
    judge,
    localise,
    sensitivity,
)
from mil.explanation.methods import METHODS
from mil.explanation.quality import quality_warnings
from mil.explanation.sanity import sanity_warnings, similarity_to_untrained
from mil.explanation.scores import TileScores
from mil.explanation.target import ExplanationTarget

NOTABLE_GAP = 0.05  # relative to the score; with a larger gap the values are no shares of it
ROUNDING_GAP = 0.01  # of a score


@dataclass(frozen=True, kw_only=True)
class AssessedMap:
    """A map and how faithful it is.

    Attributes:
        target: what is explained.
        scores: of each tile.
        faithfulness: comparison with random orders of the same bag.
        localisation: comparison with tiles that are known to matter, if there are any.
        warnings: sentences about incomplete sums and tiles of poor quality.
    """

    target: ExplanationTarget
    scores: TileScores
    faithfulness: Faithfulness
    localisation: Localisation | None
    warnings: tuple[str, ...]


def assess_map(
    target: ExplanationTarget,
    method: str,
    random: Curves,
    known: NDArray[np.bool_] | None = None,
) -> AssessedMap:
    """Make one map and compare it with random orders and, if there are any, with known tiles.

    Raises:
        FitError: the method does not suit the model.
    """
    scores = METHODS[method](target)
    return AssessedMap(
        target=target,
        scores=scores,
        faithfulness=judge(target, scores, random),
        localisation=None if known is None else localise(scores, known),
        warnings=(*_gap_warnings(scores), *quality_warnings(scores)),
    )


def map_card(assessed: AssessedMap, *, progress: Progress | None = None) -> dict[str, Any]:
    """All measures of a map as JSON values; computes the slower ones."""
    target, scores = assessed.target, assessed.scores
    method = METHODS[scores.method]
    all_tiles = np.ones((1, len(scores.bag)), dtype=bool)
    with (progress or Silent()).task("measures of the map", 3, "measures") as advance:
        infidelity_value = infidelity(target, scores)
        advance(1)
        sensitivity_value = sensitivity(target, method)
        advance(1)
        similarity = similarity_to_untrained(target, method)
        advance(1)
    return {
        "slide": scores.bag.slide,
        "model": scores.model,
        "method": scores.method,
        **target.quantity.to_json(
            answer=float(target.subset_answers(all_tiles)[0]),
            score=float(target.subset_scores(all_tiles)[0]),
        ),
        "map": {name: float(value) for name, value in scores.facts.items()},
        "faithfulness": curve_measures(assessed.faithfulness)
        | {
            "verdict": assessed.faithfulness.verdict,
            "infidelity": infidelity_value,
            "sensitivity": sensitivity_value,
            "likeness_to_untrained": similarity,
        },
        "localisation": assessed.localisation and asdict(assessed.localisation),
        "warnings": [*assessed.warnings, *sanity_warnings(similarity, scores)],
    }


def curve_measures(faithfulness: Faithfulness) -> dict[str, float]:
    """Areas and percentiles of the curves."""
    curves, random = faithfulness.curves, faithfulness.random
    return {
        "deletion": float(curves.deletion_area[0]),
        "deletion_random": float(random.deletion_area.mean()),
        "deletion_percentile": faithfulness.deletion_percentile,
        "insertion": float(curves.insertion_area[0]),
        "insertion_random": float(random.insertion_area.mean()),
        "insertion_percentile": faithfulness.insertion_percentile,
        "gain": float(curves.gain[0]),
        "p": faithfulness.p,
    }


def summary_row(assessed: AssessedMap) -> dict[str, Any]:
    """One map as a row of a cohort's table."""
    target, scores, localisation = assessed.target, assessed.scores, assessed.localisation
    known = asdict(localisation) if localisation else {}
    return {
        "slide": scores.bag.slide,
        "model": scores.model,
        "method": scores.method,
        "class": target.name,
        "better": assessed.faithfulness.better_than_random,
        **curve_measures(assessed.faithfulness),
        "infidelity": infidelity(target, scores),
        "gap": scores.facts.get("gap"),
        **{f"known_{name}": value for name, value in known.items()},
    }


@dataclass(frozen=True, kw_only=True)
class MethodSummary:
    """One method over the slides of a cohort; areas, gain and infidelity are means.

    Attributes:
        method: name of the method.
        slides: number of slides.
        deletion: mean answer over the deletion; of random orders ``deletion_random``.
        insertion: mean answer over the insertion.
        gain: insertion less deletion.
        infidelity: 0 if scores predict what each tile changes, 1 if they predict nothing.
        better: slides on which the map beats random orders.
        p: p value of ``better`` slides under chance, times the number of methods (Bonferroni).
        p_behind: p value of the difference in gain from the method with the largest, by Wilcoxon's
            signed-rank test over slides; 1 for that method itself.
        auc: mean AUC for known tiles, if there are any.
    """

    method: str
    slides: int
    deletion: float
    deletion_random: float
    insertion: float
    gain: float
    infidelity: float
    better: int
    p: float
    p_behind: float
    auc: float | None


def summarise_methods(table: pd.DataFrame) -> list[MethodSummary]:
    """The methods of a cohort's rows, by mean gain: the most faithful first."""
    from scipy.stats import binomtest

    summaries = []
    gains = table.pivot_table("gain", "slide", "method")
    ahead = gains[gains.mean().idxmax()]
    for name, rows in table.groupby("method", sort=False):
        better = int(rows["better"].sum())
        chance = binomtest(better, len(rows), SIGNIFICANT, alternative="greater").pvalue
        aucs = rows["known_auc"].dropna() if "known_auc" in rows else rows["gain"][:0]
        summaries.append(
            MethodSummary(
                method=str(name),
                slides=len(rows),
                better=better,
                p=min(1.0, float(chance) * table["method"].nunique()),
                p_behind=_p_of_difference((ahead - gains[name]).dropna()),
                auc=float(aucs.mean()) if len(aucs) else None,
                **{
                    key: float(rows[key].mean())
                    for key in ("deletion", "deletion_random", "insertion", "gain", "infidelity")
                },
            )
        )
    return sorted(summaries, key=lambda summary: -summary.gain)


def _p_of_difference(differences: "pd.Series[float]") -> float:
    from scipy.stats import wilcoxon

    return float(wilcoxon(differences).pvalue) if differences.any() else 1.0


def conclusion(methods: Sequence[MethodSummary], model: str) -> str:
    """Which method to use for a model, or that none is better than chance."""
    able = [summary for summary in methods if summary.p <= SIGNIFICANT]
    if not able:
        return (
            f"No method's maps of {model} are better than random orders: do not show any of them as an "
            "explanation."
        )
    best, *others = able
    alike = [summary.method for summary in others if summary.p_behind > SIGNIFICANT]
    ties = f" These slides do not separate it from {', '.join(alike)}." if alike else ""
    return (
        f"Most faithful for {model}: {best.method} (insertion less deletion {best.gain:.3f}; better than "
        f"random on {best.better} of {best.slides} slides).{ties} It tells what this model uses, "
        "not what the disease is."
    )


def _gap_warnings(scores: TileScores) -> tuple[str, ...]:
    """A sentence if scores miss the sum that they should have; a plain gradient promises none."""
    if scores.method == "gradient" or "gap" not in scores.facts:
        return ()
    gap, explained = scores.facts["gap"], scores.facts["explained"]
    if abs(gap) <= max(NOTABLE_GAP * abs(explained), ROUNDING_GAP):
        return ()
    return (
        f"The scores sum to {explained + gap:.3g} instead of {explained:.3g}: do not read them as shares.",
    )
