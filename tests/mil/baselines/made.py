"""Training parts made up for the tests of baselines."""

import numpy as np
import torch

from mil.heads.batches import collate
from mil.heads.head import HeadSettings, Training
from mil.heads.registry import build_head

N_CLASSES = 3
SOLVED = [
    "pooled-logistic", "chance", "quantile-logistic", "pooled-svm", "simpleshot", "knn", "clinical",
]  # fmt: skip


def made_training(
    per_class=6, *, n_classes=N_CLASSES, dim=20, slides=1, shift=1.5, seed=0, n_tiles=9
):
    """Every class moved along a feature of its own; every other case has ``slides`` slides."""
    rng = np.random.default_rng(seed)
    features, labels, cases = [], [], []
    for case in range(per_class * n_classes):
        label = case % n_classes
        for _ in range(slides if case % 2 else 1):
            bag = rng.normal(size=(n_tiles + case % 3, dim))
            bag[:, label] += shift * rng.uniform(0.5, 1)
            features.append(bag.astype(np.float32))
            labels.append(label)
            cases.append(case)
    n_slides = np.bincount(cases)
    weights = 1 / n_slides[cases]
    return Training(
        features=features,
        labels=np.array(labels),
        weights=weights / weights.mean(),
        cases=np.array(cases),
        seed=seed,
    )


def solved(name, training, n_classes=N_CLASSES):
    """A head that has learnt from a training part as a fit would have it."""
    dim = training.features[0].shape[1]
    head = build_head(name, HeadSettings(dim=dim, n_outputs=n_classes, width=8))
    head.prepare(torch.from_numpy(np.concatenate(training.features)), torch.ones(n_classes))
    head.solve(training)
    return head.eval()


def said(head, bags):
    """(n, C) probabilities of bags."""
    with torch.inference_mode():
        logits = [head(*collate([bag])).logits[0].double() for bag in bags]
    return torch.softmax(torch.stack(logits), dim=1).numpy()


def means(training):
    """(slides, D) in double precision."""
    return np.stack([bag.astype(np.float64).mean(axis=0) for bag in training.features])
