"""Folds of whole cases for a segmenter: those with and without tumour are spread evenly."""

from collections.abc import Mapping

import numpy as np

from mil.data.splits import Fold
from mil.errors import CohortError


def case_folds(
    has_tumour: Mapping[str, bool], n_folds: int, seed: int, *, otherwise: str = ""
) -> tuple[Fold, ...]:
    """Divide cases into folds, each tested once.

    Args:
        has_tumour: whether tumour is drawn on a slide of a case, by its name.
        n_folds: at least 2; no more than there are cases with tumour.
        seed: of the order.
        otherwise: what to do with fewer than two cases with tumour, in a sentence.

    Raises:
        CohortError: fewer than two cases have tumour.
    """
    with_tumour = [name for name, drawn in sorted(has_tumour.items()) if drawn]
    if len(with_tumour) < 2:
        raise CohortError(
            f"{'One case has' if with_tumour else 'No case has'} drawn tumour: a segmenter is judged on "
            "cases it has not seen, which takes two at least. "
            f"{otherwise or 'Draw tumour on slides of more cases.'}"
        )
    n_folds = min(n_folds, len(with_tumour))
    rng = np.random.default_rng(seed)
    without = [name for name in sorted(has_tumour) if name not in set(with_tumour)]
    order = [str(name) for group in (with_tumour, without) for name in rng.permutation(group)]
    tests = [tuple(sorted(order[index::n_folds])) for index in range(n_folds)]
    return tuple(
        Fold(
            repeat=0,
            index=index,
            train=tuple(sorted(set(order) - set(test))),
            test=test,
        )
        for index, test in enumerate(tests)
    )
