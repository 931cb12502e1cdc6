"""The lipoma study's classifier: F-test, recursive feature elimination, RBF support vector machine.

Yang et al. 2022, doi:10.1186/s13023-022-02304-x: of frozen convolutional features the fifth with the
largest F, then recursive elimination, then an SVM with a radial kernel, its settings by nested
cross-validation. A radial kernel ranks no features, and the paper does not say what did: here it is the
linear SVM of Guyon et al. 2002, doi:10.1023/A:1012487302797, which drops the weaker half of the features
at a time. How many are kept is chosen with the SVM's settings, on inner folds of cases.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mil.baselines.exemplars import ExemplarHead
from mil.baselines.linear import describe_slides, mean_of_tiles
from mil.baselines.nested_cv import (
    Floats,
    InnerFold,
    Ints,
    counted_by_case,
    inner_folds,
    standard_of,
)
from mil.heads.brief import mean_tile
from mil.heads.head import HeadOutput, HeadSettings, Training
from mil.heads.layers import masked_softmax, uniform_scores

SHARE = 0.2  # of the features, by F
FEWEST = 5  # features: what the study's model was left with
COSTS = (0.1, 1.0, 10.0)
WIDTHS = (0.1, 1.0)  # gamma, times the number of features
RANKING_COST = 1.0
LEAST_SLOPE = 0.01


class Setting(NamedTuple):
    """What the inner folds choose: halvings of the features, cost of an error, gamma times features."""

    halvings: int
    cost: float
    width: float


USUAL = Setting(halvings=0, cost=1.0, width=1.0)


class Machine(NamedTuple):
    """One support vector machine per class against the others.

    Attributes:
        columns: (K,) features it reads.
        centre: (K,) of each.
        spread: (K,) of each.
        exemplars: (S, K) standardised training rows.
        alpha: (S, C) signed weight of each.
        bias: (C,).
        gamma: of the kernel exp(-gamma * squared distance).
    """

    columns: Ints
    centre: Floats
    spread: Floats
    exemplars: Floats
    alpha: Floats
    bias: Floats
    gamma: float


class PooledSvm(ExemplarHead):
    """An RBF-SVM on the mean of the tiles; classes one against the rest, each with its Platt scale.

    The buffers are a ``Machine``, whose lengths depend on what was learnt from, and Platt's ``slope`` and
    ``offset`` (C,): a class's probability is sigmoid(slope * decision + offset), and they are divided by
    their sum.
    """

    LENGTHS = ("columns", "centre", "spread", "exemplars", "alpha")
    learns_from = "slides"
    brief = staticmethod(mean_tile)
    columns: Tensor
    centre: Tensor
    spread: Tensor
    exemplars: Tensor
    alpha: Tensor
    bias: Tensor
    gamma: Tensor
    slope: Tensor
    offset: Tensor

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__(settings)
        dim, n_classes = settings.dim, settings.n_outputs
        self.set_buffers(
            columns=torch.arange(dim),
            centre=torch.zeros(dim),
            spread=torch.ones(dim),
            exemplars=torch.zeros(1, dim),
            alpha=torch.zeros(1, n_classes),
            bias=torch.zeros(n_classes),
            gamma=torch.ones(()),
            slope=torch.ones(n_classes),
            offset=torch.zeros(n_classes),
        )

    def pool(self, features: Tensor, mask: Tensor, coords: Tensor | None) -> HeadOutput:
        """Compare the mean of each bag with the exemplars."""
        del coords
        means = mean_of_tiles(features, mask)  # (B, D)
        rows = (means[:, self.columns] - self.centre) / self.spread  # (B, K)
        apart = (rows.unsqueeze(1) - self.exemplars).square().sum(dim=-1)  # (B, S)
        decisions = torch.exp(-self.gamma * apart) @ self.alpha + self.bias  # (B, C)
        scores = uniform_scores(mask)  # (B, 1, N)
        return HeadOutput(
            logits=torch.nn.functional.logsigmoid(self.slope * decisions + self.offset),
            attention=masked_softmax(scores, mask),
            scores=scores,
            embedding=means,
        )

    @torch.no_grad()
    def solve(self, training: Training) -> None:
        """Choose the setting on inner folds, scale its decisions there, and fit on all training slides."""
        training = counted_by_case(training)
        rows, labels, weights = describe_slides(self, training), training.labels, training.weights
        folds = inner_folds(training)
        setting, slope, offset = USUAL, np.ones(len(self.bias)), np.zeros(len(self.bias))
        if folds:
            setting, decisions = choose_setting(rows, labels, weights, folds)
            slope, offset = platt_scale(decisions, labels, weights)
        machine = fit_machine(rows, labels, weights, setting)
        buffers = {name: torch.as_tensor(value) for name, value in machine._asdict().items()}
        buffers |= {"slope": torch.from_numpy(slope), "offset": torch.from_numpy(offset)}
        self.set_buffers(
            **{n: v.float() if v.is_floating_point() else v for n, v in buffers.items()}
        )


def variance_ratio(rows: Floats, labels: Ints, weights: Floats) -> Floats:
    """(E,) the F of each feature of rows (n, E): spread between the classes over spread within them.

    A feature that does not vary within the classes comes last where it is constant, and first where not.
    """
    total = np.average((rows - np.average(rows, axis=0, weights=weights)) ** 2, 0, weights)
    within = np.zeros(rows.shape[1])
    classes = np.unique(labels)
    for label in classes:
        own = labels == label
        mean = np.average(rows[own], axis=0, weights=weights[own])
        within += weights[own] @ (rows[own] - mean) ** 2 / weights.sum()
    freedom = (len(rows) - len(classes)) / (len(classes) - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num((total - within) / within * freedom, nan=0.0, posinf=np.inf)


def eliminate(rows: Floats, labels: Ints, weights: Floats) -> list[Ints]:
    """Columns of standardised rows that are left after 0, 1, 2, ... halvings, down to ``FEWEST``."""
    n_features = rows.shape[1]
    n_first = max(int(np.ceil(SHARE * n_features)), min(FEWEST, n_features))
    order = np.argsort(-variance_ratio(rows, labels, weights), kind="stable")
    left = [np.sort(order[:n_first])]
    while len(left[-1]) // 2 >= FEWEST:
        own = rows[:, left[-1]]
        alpha, _ = separate(own @ own.T, labels, weights, RANKING_COST)
        strength = np.square(alpha.T @ own).sum(axis=0)  # (K,) over the classes
        strongest = np.argsort(-strength, kind="stable")[: len(left[-1]) // 2]
        left.append(left[-1][np.sort(strongest)])
    return left


def separate(gram: Floats, labels: Ints, weights: Floats, cost: float) -> tuple[Floats, Floats]:
    """(alpha (n, C), bias (C,)) of each class against the others, on kernel values (n, n)."""
    from sklearn.svm import SVC

    n_classes = labels.max() + 1
    alpha, bias = np.zeros((len(labels), n_classes)), np.zeros(n_classes)
    for label in range(n_classes):
        # Its solver draws nothing, but without a seed of its own it takes one of the process's.
        svm = SVC(C=cost, kernel="precomputed", random_state=0)
        svm.fit(gram, labels == label, sample_weight=weights)
        alpha[svm.support_, label], bias[label] = svm.dual_coef_[0], svm.intercept_[0]
    return alpha, bias


def kernel(first: Floats, second: Floats, gamma: float) -> Floats:
    """(n, m) of rows (n, K) and (m, K)."""
    from scipy.spatial.distance import cdist

    return np.asarray(np.exp(-gamma * cdist(first, second, "sqeuclidean")))


def fit_machine(rows: Floats, labels: Ints, weights: Floats, setting: Setting) -> Machine:
    """Standardise, select and fit, on rows (n, E) of training slides."""
    standard = standard_of(rows, weights)
    scaled = standard(rows)
    columns = eliminate(scaled, labels, weights)[setting.halvings]
    own, gamma = scaled[:, columns], setting.width / len(columns)
    alpha, bias = separate(kernel(own, own, gamma), labels, weights, setting.cost)
    support = (alpha != 0).any(axis=1)
    return Machine(
        columns=columns,
        centre=standard.centre[columns],
        spread=standard.spread[columns],
        exemplars=own[support],
        alpha=alpha[support],
        bias=bias,
        gamma=gamma,
    )


def choose_setting(
    rows: Floats, labels: Ints, weights: Floats, folds: tuple[InnerFold, ...]
) -> tuple[Setting, Floats]:
    """The setting of the largest mean AUC on slides held out, and its decisions (n, C) on them.

    Everything that is fitted is fitted in each inner fold anew. Among equals the fewest halvings and the
    smallest cost and width are taken.
    """
    from sklearn.metrics import roc_auc_score

    decisions: dict[Setting, Floats] = {}
    for train, test in folds:
        standard = standard_of(rows[train], weights[train])
        inside, outside = standard(rows[train]), standard(rows[test])
        for halvings, columns in enumerate(eliminate(inside, labels[train], weights[train])):
            for width in WIDTHS:
                gamma = width / len(columns)
                gram = kernel(inside[:, columns], inside[:, columns], gamma)
                across = kernel(outside[:, columns], inside[:, columns], gamma)
                for cost in COSTS:
                    alpha, bias = separate(gram, labels[train], weights[train], cost)
                    scores = decisions.setdefault(
                        Setting(halvings, cost, width), np.zeros((len(rows), len(bias)))
                    )
                    scores[test] = across @ alpha + bias

    def mean_auc(scores: Floats) -> float:
        of_class = [
            roc_auc_score(labels == label, scores[:, label], sample_weight=weights)
            for label in range(scores.shape[1])
        ]
        return float(np.mean(of_class))

    best = max(sorted(decisions), key=lambda setting: round(mean_auc(decisions[setting]), 9))
    return best, decisions[best]


def platt_scale(decisions: Floats, labels: Ints, weights: Floats) -> tuple[Floats, Floats]:
    """Slope and offset (C,) that turn decisions on held-out slides into probabilities.

    Platt 1999, with his smoothed targets. A slope below 0 would turn the machine's word round; it is kept
    just above, so that decisions that were no better than chance still order the classes and say no more.
    """
    from scipy.optimize import minimize

    lines = []
    for label in range(decisions.shape[1]):
        own = labels == label
        n_own, n_other = weights[own].sum(), weights[~own].sum()
        target = np.where(own, (n_own + 1) / (n_own + 2), 1 / (n_other + 2))

        def loss(line: Floats, x: Floats = decisions[:, label], target: Floats = target) -> float:
            logit = line[0] * x + line[1]
            return float(weights @ (np.logaddexp(0, logit) - target * logit))

        start = [1.0, np.log((n_own + 1) / (n_other + 1))]
        lines.append(minimize(loss, start, bounds=[(LEAST_SLOPE, None), (None, None)], tol=1e-10).x)
    slope, offset = np.array(lines).T
    return slope, offset
