"""One map with everything that was measured of it, and the same over a cohort."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest, wilcoxon

from features.progress import Progress, Silent
from mil.explain.faithfulness import (
    SIGNIFICANT,
    Curves,
    Faithfulness,
    Localisation,
    infidelity,
    judge,
    localise,
    sensitivity,
)
from mil.explain.methods import METHODS
from mil.explain.quality import quality_warnings
from mil.explain.sanity import likeness_to_untrained, sanity_warnings
from mil.explain.scores import TileScores
from mil.explain.target import ExplanationTarget

TOLD_GAP = 0.05  # of what is explained, from which the scores are no shares of it
ROUNDING_GAP = 0.01  # of a margin


@dataclass(frozen=True, kw_only=True)
class AssessedMap:
    """A map and how true it is.

    Attributes:
        question: what was asked.
        scores: the answer, tile by tile.
        faithfulness: beside random orders of the same bag.
        localisation: beside tiles that are known to matter, if any are.
        warnings: sentences on sums that do not come out and tiles of poor quality.
    """

    question: ExplanationTarget
    scores: TileScores
    faithfulness: Faithfulness
    localisation: Localisation | None
    warnings: tuple[str, ...]


def assess_map(
    question: ExplanationTarget, method: str, random: Curves, known: NDArray[np.bool_] | None = None
) -> AssessedMap:
    """Make one map and hold it against random orders and, where given, known tiles.

    Raises:
        FitError: the method does not suit the model.
    """
    scores = METHODS[method](question)
    return AssessedMap(
        question=question,
        scores=scores,
        faithfulness=judge(question, scores, random),
        localisation=None if known is None else localise(scores, known),
        warnings=(*_gap_warnings(scores), *quality_warnings(scores)),
    )


def map_card(examined: AssessedMap, *, progress: Progress | None = None) -> dict[str, Any]:
    """All that is known of a map, as JSON holds it; the slower measures are made here."""
    question, scores = examined.question, examined.scores
    method = METHODS[scores.method]
    whole = np.ones((1, len(scores.bag)), dtype=bool)
    with (progress or Silent()).task("measures of the map", 3, "measures") as advance:
        told = infidelity(question, scores)
        advance(1)
        moved = sensitivity(question, method)
        advance(1)
        likeness = likeness_to_untrained(question, method)
        advance(1)
    return {
        "slide": scores.bag.slide,
        "model": scores.model,
        "method": scores.method,
        "class": question.class_name,
        "probability": float(question.probability_of_kept(whole)[0]),
        "margin": float(question.margin_of_kept(whole)[0]),
        "map": {name: float(value) for name, value in scores.facts.items()},
        "faithfulness": measures(examined.faithfulness)
        | {
            "verdict": examined.faithfulness.verdict,
            "infidelity": told,
            "sensitivity": moved,
            "likeness_to_untrained": likeness,
        },
        "localisation": examined.localisation and asdict(examined.localisation),
        "warnings": [*examined.warnings, *sanity_warnings(likeness, scores)],
    }


def measures(faithfulness: Faithfulness) -> dict[str, float]:
    """The numbers of the curves."""
    own, random = faithfulness.curves, faithfulness.random
    return {
        "deletion": float(own.deletion_area[0]),
        "deletion_random": float(random.deletion_area.mean()),
        "deletion_percentile": faithfulness.deletion_percentile,
        "insertion": float(own.insertion_area[0]),
        "insertion_random": float(random.insertion_area.mean()),
        "insertion_percentile": faithfulness.insertion_percentile,
        "gain": float(own.gain[0]),
        "p": faithfulness.p,
    }


def summary_row(examined: AssessedMap) -> dict[str, Any]:
    """One map as a row of a cohort's table."""
    question, scores, located = examined.question, examined.scores, examined.localisation
    return {
        "slide": scores.bag.slide,
        "model": scores.model,
        "method": scores.method,
        "class": question.class_name,
        "better": examined.faithfulness.better_than_random,
        **measures(examined.faithfulness),
        "infidelity": infidelity(question, scores),
        "gap": scores.facts.get("gap"),
        **{f"known_{name}": value for name, value in (asdict(located) if located else {}).items()},
    }


@dataclass(frozen=True, kw_only=True)
class MethodSummary:
    """One method over the slides of a cohort; areas, gain and infidelity are means.

    Attributes:
        method: its name.
        slides: how many.
        deletion: probability left, on average over the deletion; random orders leave
            ``deletion_random``.
        insertion: likewise, of what is put in.
        gain: insertion less deletion.
        infidelity: 0 where scores tell what each tile changes, 1 where they tell nothing of it.
        better: slides on which the map beats random orders.
        p: of so many by chance, times the number of methods.
        p_behind: of a gain that differs so from that of the method that gains most, by Wilcoxon's signed-rank
            test over slides; 1 for that method itself.
        auc: of known tiles, where there are any.
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
    """The methods of a cohort's rows, the most faithful first: that of the largest mean gain."""
    found = []
    gains = table.pivot_table("gain", "slide", "method")
    ahead = gains[gains.mean().idxmax()]
    for name, rows in table.groupby("method", sort=False):
        better = int(rows["better"].sum())
        chance = binomtest(better, len(rows), SIGNIFICANT, alternative="greater").pvalue
        aucs = rows["known_auc"].dropna() if "known_auc" in rows else rows["gain"][:0]
        found.append(
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
    return sorted(found, key=lambda each: -each.gain)


def _p_of_difference(differences: "pd.Series[float]") -> float:
    return float(wilcoxon(differences).pvalue) if differences.any() else 1.0


def conclusion(methods: Sequence[MethodSummary], model: str) -> str:
    """Which method to use for a model, or that none tells more than chance."""
    able = [each for each in methods if each.p <= SIGNIFICANT]
    if not able:
        return (
            f"No method's maps of {model} are better than random orders: show none of them as an "
            "explanation."
        )
    best, *others = able
    alike = [each.method for each in others if each.p_behind > SIGNIFICANT]
    untold = f" These slides do not tell it from {', '.join(alike)}." if alike else ""
    return (
        f"Most faithful for {model}: {best.method} (insertion less deletion {best.gain:.3f}; better than "
        f"random on {best.better} of {best.slides} slides).{untold} This is faith to the model, right or "
        "wrong."
    )


def _gap_warnings(scores: TileScores) -> tuple[str, ...]:
    """A sentence where scores that should sum to the answer do not; a bare gradient promises no sum."""
    if scores.method == "gradient" or "gap" not in scores.facts:
        return ()
    gap, explained = scores.facts["gap"], scores.facts["explained"]
    if abs(gap) <= max(TOLD_GAP * abs(explained), ROUNDING_GAP):
        return ()
    return (
        f"The scores sum to {explained + gap:.3g} where {explained:.3g} is to be explained: do not read them "
        "as shares.",
    )
