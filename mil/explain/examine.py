"""One map with everything that was measured of it, and the same over a cohort."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

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
from mil.explain.question import Question
from mil.explain.sanity import likeness_to_untrained
from mil.explain.scores import TileScores


@dataclass(frozen=True, kw_only=True)
class Examined:
    """A map and how true it is.

    Attributes:
        question: what was asked.
        scores: the answer, tile by tile.
        faithfulness: beside random orders of the same bag.
        localisation: beside tiles that are known to matter, if any are.
        warnings: sentences on tiles of poor quality.
    """

    question: Question
    scores: TileScores
    faithfulness: Faithfulness
    localisation: Localisation | None
    warnings: tuple[str, ...]


def examine(
    question: Question, method: str, random: Curves, known: NDArray[np.bool_] | None = None
) -> Examined:
    """Make one map and hold it against random orders and, where given, known tiles.

    Raises:
        FitError: the method does not suit the model.
    """
    scores = METHODS[method](question)
    return Examined(
        question=question,
        scores=scores,
        faithfulness=judge(question, scores, random),
        localisation=None if known is None else localise(scores, known),
        warnings=quality_warnings(scores),
    )


def facts_of(examined: Examined) -> dict[str, Any]:
    """All that is known of a map, as JSON holds it; the slower measures are made here."""
    question, scores = examined.question, examined.scores
    method = METHODS[scores.method]
    return {
        "slide": scores.bag.slide,
        "model": scores.model,
        "method": scores.method,
        "class": question.class_name,
        "probability": float(np.exp(_log_probability(question))),
        "margin": float(question.margin_of_kept(np.ones((1, len(scores.bag)), bool))[0]),
        "map": {name: float(value) for name, value in scores.facts.items()},
        "faithfulness": measures(examined.faithfulness)
        | {
            "verdict": examined.faithfulness.verdict,
            "infidelity": infidelity(question, scores),
            "sensitivity": sensitivity(question, method),
            "likeness_to_untrained": likeness_to_untrained(question, method),
        },
        "localisation": examined.localisation and asdict(examined.localisation),
        "warnings": list(examined.warnings),
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


@dataclass(frozen=True, kw_only=True)
class MethodSummary:
    """One method over the slides of a cohort; areas and gain are means.

    Attributes:
        method: its name.
        slides: how many.
        deletion: probability left, on average over the deletion; random orders leave
            ``deletion_random``.
        insertion: likewise, of what is put in.
        gain: insertion less deletion.
        better: slides on which the map beats random orders.
        p: of so many by chance, times the number of methods.
        auc: of known tiles, where there are any.
    """

    method: str
    slides: int
    deletion: float
    deletion_random: float
    insertion: float
    gain: float
    better: int
    p: float
    auc: float | None


def summarise_methods(maps: Sequence[Examined]) -> list[MethodSummary]:
    """The methods of a cohort's maps, the most faithful first: that of the largest mean gain."""
    names = list(dict.fromkeys(each.scores.method for each in maps))
    found = []
    for name in names:
        of_it = [each for each in maps if each.scores.method == name]
        better = sum(each.faithfulness.better_than_random for each in of_it)
        aucs = [each.localisation.auc for each in of_it if each.localisation]
        mean = {
            key: float(np.mean([measures(each.faithfulness)[key] for each in of_it]))
            for key in ("deletion", "deletion_random", "insertion", "gain")
        }
        chance = binomtest(better, len(of_it), SIGNIFICANT, alternative="greater").pvalue
        found.append(
            MethodSummary(
                method=name,
                slides=len(of_it),
                better=better,
                p=min(1.0, float(chance) * len(names)),
                auc=float(np.mean(aucs)) if aucs else None,
                **mean,
            )
        )
    return sorted(found, key=lambda each: -each.gain)


def conclusion(methods: Sequence[MethodSummary], model: str) -> str:
    """Which method to use for a model, or that none tells more than chance."""
    able = [each for each in methods if each.p <= SIGNIFICANT]
    if not able:
        return (
            f"No method's maps of {model} are better than random orders of tiles: show none of them as an "
            "explanation."
        )
    best = able[0]
    return (
        f"Most faithful for {model}: {best.method} (insertion less deletion {best.gain:.3f}; better than "
        f"random on {best.better} of {best.slides} slides). This is faith to the model, right or wrong."
    )


def _log_probability(question: Question) -> float:
    whole = np.ones((1, len(question.bag)), dtype=bool)
    return float(question.logits_of_kept(whole)[0, question.target])
