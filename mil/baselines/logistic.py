"""Logistic regression on one row per slide; heads differ in the row."""

from abc import abstractmethod
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from mil.baselines.cox import solve_cox
from mil.baselines.nested_cv import Floats, Ints, counted_by_case, inner_folds, standard_of
from mil.heads.head import Head, HeadOutput, HeadSettings, Training
from mil.heads.layers import masked_softmax, uniform_scores
from mil.learning.batches import collate

COSTS = (0.01, 0.1, 1.0, 10.0, 100.0)  # small is a strong penalty
USUAL_COST = 1.0


class LogisticHead(Head):
    """Multinomial logistic regression with an L2 penalty on the row that ``describe`` makes of a bag.

    Rows are standardised in the training part and divided by the root of their length, so that one
    penalty means the same for 5 columns and for 20,000 features. Which of ``COSTS`` is taken is decided
    by the log loss on inner folds of the training cases. Of survival it is a Cox regression with the same
    penalty, chosen by the partial likelihood.

    Attributes:
        weight: (C, E) on rows as ``describe`` makes them.
        bias: (C,).
        cost: () the one that was chosen.
    """

    learns_from: ClassVar[Literal["slides", "table"]] = "slides"
    weight: Tensor
    bias: Tensor
    cost: Tensor

    def __init__(self, settings: HeadSettings, length: int) -> None:
        super().__init__(settings)
        self.register_buffer("weight", torch.zeros(settings.n_classes, length))
        self.register_buffer("bias", torch.zeros(settings.n_classes))
        self.register_buffer("cost", torch.tensor(USUAL_COST))

    @classmethod
    def takes_outcomes(cls) -> bool:
        """As a Cox regression."""
        return True

    @abstractmethod
    def describe(self, features: Tensor, mask: Tensor) -> Tensor:
        """The rows (B, E) of standardised bags (B, N, D)."""

    def pool(self, features: Tensor, mask: Tensor, coords: Tensor | None) -> HeadOutput:
        """Describe each bag, then weigh its row."""
        del coords
        rows = self.describe(features, mask)  # (B, E)
        scores = uniform_scores(mask)  # (B, 1, N)
        return HeadOutput(
            logits=rows @ self.weight.T + self.bias,
            attention=masked_softmax(scores, mask),
            scores=scores,
            embedding=rows,
        )

    @torch.no_grad()
    def solve(self, training: Training) -> None:
        """Choose the cost and fit on all training slides."""
        training = counted_by_case(training)
        rows = rows_of(self, training)
        if training.time is not None:
            weight, cost = solve_cox(rows, training, COSTS, USUAL_COST)
            self.weight.copy_(torch.from_numpy(weight))
            self.cost.fill_(cost)
            return
        cost = choose_cost(rows, training)
        fitted = fit_logistic(rows, training.labels, training.weights, [cost])
        for buffer, value in zip((self.weight, self.bias), fitted[0], strict=True):
            buffer.copy_(torch.from_numpy(value))
        self.cost.fill_(cost)


def mean_of_tiles(features: Tensor, mask: Tensor) -> Tensor:
    """(B, D) of bags (B, N, D) that are zero on padding."""
    return features.sum(dim=1) / mask.sum(dim=1, keepdim=True)


def rows_of(head: Head, training: Training) -> Floats:
    """What the head describes each training slide by, (slides, E); one bag in memory at a time."""
    rows = []
    for bag in training.features:
        batch = collate([bag])
        rows.append(head(batch.features, batch.mask).embedding[0].double().numpy())
    return np.stack(rows)


def choose_cost(rows: Floats, training: Training) -> float:
    """The cost of the lowest log loss on cases held out; the usual one where none can be."""
    folds = inner_folds(training)
    if not folds:
        return USUAL_COST
    losses = np.zeros(len(COSTS))
    for train, test in folds:
        fits = fit_logistic(rows[train], training.labels[train], training.weights[train], COSTS)
        for i, (weight, bias) in enumerate(fits):
            logits = rows[test] @ weight.T + bias
            log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
            truth = np.take_along_axis(log_p, training.labels[test, None], axis=1)[:, 0]
            losses[i] -= training.weights[test] @ truth
    return COSTS[int(np.argmin(losses))]


def fit_logistic(
    rows: Floats, labels: Ints, weights: Floats, costs: tuple[float, ...] | list[float]
) -> list[tuple[Floats, Floats]]:
    """(weight (C, E), bias (C,)) for each cost, on rows as they are given.

    Args:
        rows: (n, E).
        labels: (n,) of which every class has one.
        weights: (n,).
        costs: what a row's loss counts against half the squared length of the weights.
    """
    from sklearn.linear_model import LogisticRegression

    standard = standard_of(rows, weights)
    scale = standard.spread * np.sqrt(rows.shape[1])  # (E,)
    # Under an L2 penalty the weights lie in the span of the rows: n coordinates say what E do.
    turned, lengths, axes = np.linalg.svd((rows - standard.centre) / scale, full_matrices=False)
    fits = []
    for cost in costs:
        model = LogisticRegression(C=cost, tol=1e-6, max_iter=10_000)
        model.fit(turned * lengths, labels, sample_weight=weights)
        coefficients, bias = model.coef_, model.intercept_
        if len(bias) == 1:  # of two classes, only the second is given
            coefficients = np.vstack([0 * coefficients, coefficients])
            bias = np.append(0.0, bias)
        weight = coefficients @ axes / scale
        fits.append((weight, bias - weight @ standard.centre))
    return fits
