"""Which model is right where another is wrong: paired tests on cases."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

import numpy as np
from scipy.stats import binomtest

from mil.errors import RunError
from mil.evaluation.metrics import Bools, predicted
from mil.evaluation.predictions import Predictions


@dataclass(frozen=True)
class PairTest:
    """Exact McNemar test of two models on the same cases.

    Attributes:
        first: a model; the reference where one was asked for.
        second: the model compared with it.
        n: cases.
        only_first: cases that only the first calls rightly.
        only_second: cases that only the second calls rightly.
        p: two-sided, exact binomial on the cases where they differ; 1 where they never do.
        p_holm: p adjusted for all pairs tested together.
    """

    first: str
    second: str
    n: int
    only_first: int
    only_second: int
    p: float
    p_holm: float

    def to_json(self) -> dict[str, object]:
        """The fields as plain values."""
        return asdict(self)


def compare(predictions: Predictions, reference: str | None = None) -> tuple[PairTest, ...]:
    """Test pairs of models on case-level correctness, adjusted by Holm's procedure.

    A case counts as right where the model calls it rightly in more than half of the repeats:
    every repeat has its say, and a case remains one case.

    Args:
        predictions: of one or more models; one model has no pair.
        reference: compare only this model with each other; None compares all pairs.

    Raises:
        RunError: the reference is none of the models.
    """
    models = predictions.models
    if reference is not None and reference not in models:
        raise RunError(f"No model '{reference}' to compare with. Known: {', '.join(models)}.")
    pairs = (
        list(combinations(models, 2))
        if reference is None
        else [(reference, name) for name in models if name != reference]
    )
    right = {name: _mostly_right(predictions, name) for name in models}
    counts = [
        (int(np.sum(right[a] & ~right[b])), int(np.sum(right[b] & ~right[a]))) for a, b in pairs
    ]
    p = [mcnemar_exact(*count) for count in counts]
    return tuple(
        PairTest(a, b, len(right[a]), *count, each, adjusted)
        for (a, b), count, each, adjusted in zip(pairs, counts, p, holm(p), strict=True)
    )


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided p value of the exact McNemar test from the two discordant counts."""
    differ = only_first + only_second
    return float(binomtest(only_first, differ).pvalue) if differ else 1.0


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979, Scand J Stat 6:65), in the order given."""
    adjusted, running = [1.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=lambda each: p[each])):
        running = max(running, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = running
    return adjusted


def _mostly_right(predictions: Predictions, model: str) -> Bools:
    """(n,) True where the model is right in more than half of the repeats."""
    scores = [predictions.case_scores(model, repeat) for repeat in predictions.repeats]
    share = np.mean([predicted(each.p) == each.truth for each in scores], axis=0)
    found: Bools = share > 0.5
    return found
