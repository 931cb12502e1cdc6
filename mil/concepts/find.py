"""Concepts: clusters of tiles by their features, their share in each case, and how shares predict the class.

Clustering uses no labels. Still, for every reported number the clusters come from the training cases of each
fold alone. One more set of clusters, from all cases, is for display.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.bags.bag import Bag
from mil.baselines.logistic import fit_logistic
from mil.baselines.nested_cv import Floats, Ints, Standard, standard_of
from mil.baselines.ridge import USUAL_COST
from mil.data.case import Case
from mil.data.cohort import Cohort
from mil.data.splits import Fold
from mil.errors import CohortError
from mil.evaluation.classification.predictions import COLUMNS, PREFIX, ClassPredictions
from mil.learning.crossval import check_seen
from mil.learning.reserved import check_reserved

TILES_PER_CASE = 1000  # sample for clustering: every case counts the same, however large


@dataclass(frozen=True)
class Clusters:
    """Cluster centres in standardised features.

    Attributes:
        standard: the standardisation.
        centres: (K, D).
    """

    standard: Standard
    centres: Floats

    def distances(self, bag: Bag) -> Floats:
        """(N, K) distances of tiles to centres."""
        tiles = self.standard(np.asarray(bag.features, dtype=np.float64))
        squared = (
            np.square(tiles).sum(axis=1, keepdims=True)
            - 2 * tiles @ self.centres.T
            + np.square(self.centres).sum(axis=1)
        )
        distances: Floats = np.sqrt(np.maximum(squared, 0))
        return distances

    def shares(self, case: Case) -> Floats:
        """(K,) share of the case's tiles nearest to each centre; they sum to 1."""
        nearest = np.concatenate([self.distances(bag).argmin(axis=1) for bag in case.bags])
        shares: Floats = np.bincount(nearest, minlength=len(self.centres)) / len(nearest)
        return shares


@dataclass(frozen=True, kw_only=True)
class Concepts:
    """Clusters of a cohort's tiles with their shares and weights.

    Attributes:
        classes: names.
        cases: in the order of the rows of ``shares``.
        clusters: from all cases, for display.
        shares: (n, K) of each case, by these clusters.
        weights: (F, C, K) per fold: what one standard deviation more of a concept adds to the logit of a
            class, less the mean over all classes; fitted on the training cases of the fold.
        predictions: out of fold, with clusters and weights of each fold's training cases only.
    """

    classes: tuple[str, ...]
    cases: tuple[Case, ...]
    clusters: Clusters
    shares: Floats
    weights: Floats
    predictions: ClassPredictions


def find_concepts(cohort: Cohort, folds: Sequence[Fold], *, n_concepts: int, seed: int) -> Concepts:
    """Cluster the tiles of a cohort, and weight the clusters' shares for each class.

    Args:
        cohort: with bags of one backbone.
        folds: of its cases.
        n_concepts: number of clusters.
        seed: of the sampled tiles and the initial centres.

    Raises:
        CohortError: there are fewer tiles than concepts, or a fold trains on no case of a class.
        LeakageError: a backbone has seen a case that would be tested.
    """
    check_reserved(cohort)
    check_seen(cohort, folds)
    for fold in folds:
        missing = {*cohort.classes} - {case.label for case in cohort.named(fold.train)}
        if missing:
            raise CohortError(
                f"No case of class {min(missing)} trains in fold {fold.index} of repeat {fold.repeat}. Use a "
                "run with other folds."
            )
    rows = [row for fold in folds for row in _predict_fold(cohort, fold, n_concepts, seed)]
    columns = [*COLUMNS, *(PREFIX + name for name in cohort.classes)]
    clusters = cluster(cohort.cases, n_concepts, seed=seed)
    shares = np.stack([clusters.shares(case) for case in cohort.cases])
    training = [np.array([case.name in fold.train for case in cohort.cases]) for fold in folds]
    labels = _labels(cohort.cases, cohort.classes)
    return Concepts(
        classes=cohort.classes,
        cases=cohort.cases,
        clusters=clusters,
        shares=shares,
        weights=np.stack([_weights(shares[part], labels[part]) for part in training]),
        predictions=ClassPredictions(pd.DataFrame(rows, columns=columns), cohort.classes),
    )


def cluster(cases: Sequence[Case], n_concepts: int, *, seed: int) -> Clusters:
    """k-means on the standardised features of equally many tiles per case.

    Raises:
        CohortError: there are fewer tiles than concepts.
    """
    from sklearn.cluster import MiniBatchKMeans

    rng = np.random.default_rng(seed)
    tiles = np.concatenate([_sample_tiles(case, rng) for case in cases])
    if len(tiles) < n_concepts:
        raise CohortError(
            f"{len(tiles)} tiles are too few for {n_concepts} concepts. Set n_concepts lower."
        )
    standard = standard_of(tiles, np.ones(len(tiles)))
    kmeans = MiniBatchKMeans(n_concepts, n_init=3, random_state=seed).fit(
        standard(tiles).astype(np.float32)
    )
    return Clusters(standard, kmeans.cluster_centers_.astype(np.float64))


def _sample_tiles(case: Case, rng: np.random.Generator) -> Floats:
    """A random sample of a case's tiles, (n, D)."""
    tiles = np.concatenate([np.asarray(bag.features) for bag in case.bags]).astype(np.float64)
    chosen = rng.permutation(len(tiles))[:TILES_PER_CASE]
    return tiles[np.sort(chosen)]


def _predict_fold(cohort: Cohort, fold: Fold, n_concepts: int, seed: int) -> list[list[object]]:
    """A row per tested case, from clusters and weights of the training cases."""
    train, test = cohort.named(fold.train), cohort.named(fold.test)
    clusters = cluster(train, n_concepts, seed=seed)
    rows = np.stack([clusters.shares(case) for case in train])
    weight, bias = _fit(rows, _labels(train, cohort.classes))
    predicted = []
    for case in test:
        logits = weight @ clusters.shares(case) + bias
        p = np.exp(logits - np.logaddexp.reduce(logits))
        predicted.append(
            ["concepts", fold.repeat, fold.index, case.name, case.name, case.label, *p]
        )
    return predicted


def _weights(shares: Floats, labels: Ints) -> Floats:
    """(C, K) per standard deviation of a share, centred over the classes."""
    weight, _ = _fit(shares, labels)
    scaled: Floats = weight * shares.std(axis=0)
    scaled -= scaled.mean(axis=0)
    return scaled


def _fit(rows: Floats, labels: Ints) -> tuple[Floats, Floats]:
    [fitted] = fit_logistic(rows, labels, np.ones(len(rows)), [USUAL_COST])
    return fitted


def _labels(cases: Sequence[Case], classes: Sequence[str]) -> NDArray[np.int64]:
    return np.array([classes.index(case.label) for case in cases])
