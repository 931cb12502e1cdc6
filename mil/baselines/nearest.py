"""Baselines for few cases: the nearest class mean and the nearest cases, on pooled vectors.

A case is one vector, the mean of the tiles of each slide averaged over its slides. As in SimpleShot (Y. Wang
et al. 2019, arXiv:1911.04623) it is centred by the mean of the training cases, in which every class weighs
the same, and divided by its length. Lengths and distances add up what features measure, so each is divided by
its spread among the training tiles before, which is not in the paper: in another unit it is the same. What is
chosen is chosen by leaving out one training case at a time, from the centre as well.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mil.baselines.exemplars import ExemplarHead
from mil.baselines.linear import describe_slides, mean_of_tiles
from mil.baselines.nested_cv import Floats, Ints
from mil.heads.brief import mean_tile
from mil.heads.head import HeadOutput, HeadSettings, Training
from mil.heads.layers import masked_softmax, uniform_scores

USUAL_SHARPNESS = 1.0  # where no case can be left out
SHARPEST = 1000.0
NEIGHBOURS = (1, 3, 5, 9, 15)  # that are tried
SAME = 1e-6  # difference of two cosines that is rounding alone
SHORTEST = 1e-12  # a vector that lies at the centre has no direction
CONSTANT = 1e-6  # spread of a feature, as a share of its size, that is rounding alone


class Directions(NamedTuple):
    """Training cases as directions from their centre.

    Attributes:
        centre: (D,) mean over the classes of the means of their cases.
        vectors: (n, D) of length 1.
        labels: (n,).
    """

    centre: Floats
    vectors: Floats
    labels: Ints

    def place(self, rows: Floats) -> Floats:
        """Rows (m, D) centred and divided by their length."""
        apart = rows - self.centre
        return np.asarray(apart / np.linalg.norm(apart, axis=1, keepdims=True).clip(SHORTEST))

    def class_means(self, n_classes: int) -> Floats:
        """(C, D) of the vectors of each class."""
        means = [self.vectors[self.labels == label].mean(axis=0) for label in range(n_classes)]
        return np.stack(means)

    def votes(self, n_classes: int) -> Floats:
        """(n, C) a case votes for its class, with a weight by which all classes have equally many votes."""
        counts = np.bincount(self.labels, minlength=n_classes)
        weights = len(self.labels) / (n_classes * counts[self.labels])
        return np.asarray(np.eye(n_classes)[self.labels] * weights[:, None])


def make_gallery(rows: Floats, labels: Ints) -> Directions:
    """The gallery of cases (n, D)."""
    weights = 1 / np.bincount(labels)[labels]
    gallery = Directions(np.average(rows, axis=0, weights=weights), rows, labels)
    return gallery._replace(vectors=gallery.place(rows))


def rows_by_case(rows: Floats, training: Training) -> tuple[Floats, Ints]:
    """(cases, D) means of the slides (slides, D) of each case, and the label of each."""
    names, first = np.unique(training.cases, return_index=True)
    means = [
        np.average(rows[own], axis=0, weights=training.weights[own])
        for own in (training.cases == name for name in names)
    ]
    return np.stack(means), training.labels[first]


def leave_out_cases(rows: Floats, labels: Ints) -> Iterator[tuple[Directions, Floats, int]]:
    """(gallery of the other cases, vector (1, D), label) of each case whose class has another case."""
    counts = np.bincount(labels)
    for i in np.flatnonzero(counts[labels] > 1):
        others = np.arange(len(labels)) != i
        gallery = make_gallery(rows[others], labels[others])
        yield gallery, gallery.place(rows[i : i + 1]), int(labels[i])


class NearestHead(ExemplarHead):
    """What both share: the pooled vector of a bag, centred and of length 1."""

    learns_from = "slides"
    centre: Tensor

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__(settings)
        self.register_buffer("centre", torch.zeros(settings.dim))

    @torch.no_grad()
    def case_rows(self, training: Training) -> tuple[Floats, Ints]:
        """As ``rows_by_case``, each feature in its own spread among tiles; slides have their weights in it.

        A feature that does not vary in training says nothing later.
        """
        tiles = (
            np.asarray(bag, np.float64) for bag in training.features
        )  # one in memory at a time
        facts = [
            (bag.mean(axis=0), np.square(bag).mean(axis=0), abs(bag).max(axis=0)) for bag in tiles
        ]
        means, squares, most = map(np.stack, zip(*facts, strict=True))  # (slides, D) each
        centre = np.average(means, axis=0, weights=training.weights)
        square = np.average(squares, axis=0, weights=training.weights)
        spread = np.sqrt(np.maximum(square - centre**2, 0.0))
        varies = spread > CONSTANT * most.max(axis=0)
        self.scale.copy_(torch.from_numpy(np.where(varies, spread, np.inf)))
        return rows_by_case(describe_slides(self, training), training)

    def output(self, logits: Tensor, means: Tensor, mask: Tensor) -> HeadOutput:
        """The output with equal attention to all tiles."""
        scores = uniform_scores(mask)  # (B, 1, N)
        return HeadOutput(
            logits=logits, attention=masked_softmax(scores, mask), scores=scores, embedding=means
        )

    def place(self, means: Tensor) -> Tensor:
        """Pooled vectors (B, D) centred and divided by their length."""
        return torch.nn.functional.normalize(means.float() - self.centre, dim=1, eps=SHORTEST)


class SimpleShot(NearestHead):
    """The nearest class mean.

    The logit of a class is -sharpness * squared distance to its mean, so that the probabilities are the
    softmax of these. The sharpness is that of the highest likelihood of training cases left out, with Platt's
    smoothed targets; 1 where every class has a single case.

    Attributes:
        means: (C, D) of the classes.
        sharpness: ().
    """

    LENGTHS = ()
    brief = staticmethod(mean_tile)
    means: Tensor
    sharpness: Tensor

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__(settings)
        self.register_buffer("means", torch.zeros(settings.n_outputs, settings.dim))
        self.register_buffer("sharpness", torch.tensor(USUAL_SHARPNESS))

    def pool(self, features: Tensor, mask: Tensor, coords: Tensor | None) -> HeadOutput:
        """Compare the vector of each bag with the class means."""
        del coords
        pooled = mean_of_tiles(features, mask)  # (B, D)
        apart = (self.place(pooled).unsqueeze(1) - self.means).square().sum(dim=-1)  # (B, C)
        return self.output(-self.sharpness * apart, pooled, mask)

    @torch.no_grad()
    def solve(self, training: Training) -> None:
        """Average the cases of each class, and choose the sharpness."""
        rows, labels = self.case_rows(training)
        gallery = make_gallery(rows, labels)
        self.centre.copy_(torch.from_numpy(gallery.centre))
        self.means.copy_(torch.from_numpy(gallery.class_means(self.settings.n_outputs)))
        self.sharpness.fill_(choose_sharpness(rows, labels))


def choose_sharpness(rows: Floats, labels: Ints) -> float:
    """The sharpness of the highest likelihood of cases (n, D) that are left out one by one.

    With Platt's targets, which leave each wrong class a little, it is finite also where every case is right.
    """
    from scipy.optimize import minimize_scalar

    n_classes = int(labels.max()) + 1
    apart, truth = [], []
    for gallery, vector, label in leave_out_cases(rows, labels):
        apart.append(np.square(vector - gallery.class_means(n_classes)).sum(axis=1))
        truth.append(label)
    if not truth:
        return USUAL_SHARPNESS
    distances, n = np.stack(apart), len(truth)  # (n, C)
    weights = 1 / np.bincount(truth, minlength=n_classes)[truth]
    targets = (n * np.eye(n_classes)[truth] + 1) / (n + n_classes)

    def loss(sharpness: float) -> float:
        logits = -sharpness * distances
        log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        return -float(weights @ (targets * log_p).sum(axis=1))

    return float(minimize_scalar(loss, bounds=(0.0, SHARPEST), method="bounded").x)


class NearestCases(NearestHead):
    """The nearest training cases by cosine, each of which votes for its class.

    A probability is a smoothed share of the votes: beside the cases, one vote is divided equally among the
    classes. How many cases vote is the one of ``NEIGHBOURS`` with the highest likelihood of training cases
    left out; one where every class has a single case.

    Attributes:
        exemplars: (S, D) the training cases.
        votes: (S, C) of each.
        neighbours: () how many vote.
    """

    LENGTHS = ("exemplars", "votes")
    brief = staticmethod(mean_tile)
    exemplars: Tensor
    votes: Tensor
    neighbours: Tensor

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__(settings)
        self.set_buffers(
            exemplars=torch.zeros(1, settings.dim),
            votes=torch.zeros(1, settings.n_outputs),
            neighbours=torch.tensor(NEIGHBOURS[0]),
        )

    def pool(self, features: Tensor, mask: Tensor, coords: Tensor | None) -> HeadOutput:
        """Count the votes of the cases nearest to each bag."""
        del coords
        pooled = mean_of_tiles(features, mask)  # (B, D)
        likeness = self.place(pooled) @ self.exemplars.T  # (B, S)
        votes = neighbour_weights(likeness, int(self.neighbours)) @ self.votes  # (B, C)
        return self.output(share_votes(votes).log(), pooled, mask)

    @torch.no_grad()
    def solve(self, training: Training) -> None:
        """Keep the cases, and choose how many of them vote."""
        rows, labels = self.case_rows(training)
        gallery, n_classes = make_gallery(rows, labels), self.settings.n_outputs
        self.set_buffers(
            centre=torch.from_numpy(gallery.centre).float(),
            exemplars=torch.from_numpy(gallery.vectors).float(),
            votes=torch.from_numpy(gallery.votes(n_classes)).float(),
            neighbours=torch.tensor(choose_neighbours(rows, labels)),
        )


def neighbour_weights(likeness: Tensor, count: int) -> Tensor:
    """(B, S) how much each case counts among the nearest, so many by their likeness (B, S).

    Cases as near as the last share the places that are left, whatever their order.
    """
    last = likeness.topk(count, dim=1).values[:, -1:]
    nearer = likeness > last + SAME
    tied = (likeness - last).abs() <= SAME
    places = count - nearer.sum(dim=1, keepdim=True)
    return nearer.to(likeness.dtype) + tied * places / tied.sum(dim=1, keepdim=True)


def share_votes(votes: Tensor) -> Tensor:
    """(B, C) probabilities of votes (B, C), smoothed by one vote."""
    return (votes + 1 / votes.shape[1]) / (votes.sum(dim=1, keepdim=True) + 1)


def choose_neighbours(rows: Floats, labels: Ints) -> int:
    """How many neighbours give cases (n, D) that are left out one by one the highest likelihood."""
    n_classes = int(labels.max()) + 1
    counts = np.bincount(labels)
    able = [k for k in NEIGHBOURS if k < len(labels)]
    gains = np.zeros(len(able))
    for gallery, vector, label in leave_out_cases(rows, labels):
        likeness = torch.from_numpy(gallery.vectors @ vector[0])[None]
        votes = torch.from_numpy(gallery.votes(n_classes))
        shares = [share_votes(neighbour_weights(likeness, k) @ votes)[0, label] for k in able]
        gains += np.log(torch.stack(shares).numpy()) / counts[label]
    return able[int(np.argmax(gains))]
