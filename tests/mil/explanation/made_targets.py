"""Targets to explain: small models fitted on planted tiles, and heads whose answer is known by hand."""

from dataclasses import replace
from functools import cache

import numpy as np
import torch

from mil.explanation.quantity import quantity
from mil.explanation.target import ExplanationTarget, explanation_target
from mil.heads.head import HeadSettings
from mil.heads.registry import build_head
from mil.learning.fitted import FittedModel
from mil.learning.readout import ClassReadout
from mil.learning.training import fit_model
from mil.settings import FitSettings
from tests.mil.made import QUICK, made_bag, planted_cohort

COHORT, KEYS = planted_cohort(n_classes=3, per_class=6)
LEARNT = FitSettings(seeds=1, epochs=40, learning_rate=5e-3, width=32, precision="fp32")


@cache
def learnt(model="abmil", seeds=1):
    return fit_model(model, COHORT.cases, (), COHORT.classes, replace(LEARNT, seeds=seeds), seed=0)


def planted_target(model="abmil", seeds=1, case=0):
    """A target on a bag of planted tiles, and which of them they are."""
    bag = COHORT.cases[case].bags[0]
    return explanation_target(learnt(model, seeds), bag), KEYS[bag.slide]


def untrained(model, *, n_tiles=9, n_classes=3, dim=5, members=1, seed=0, **changes):
    """A target to a head with fresh weights on random tiles."""
    torch.manual_seed(seed)
    head = build_head(model, HeadSettings(dim=dim, n_outputs=n_classes, width=8), members).eval()
    for part in getattr(head, "members", [head]):
        part.shift.normal_()
        part.scale.fill_(0.7)
    bag = made_bag("s", n_tiles=n_tiles, dim=dim, seed=seed, **changes)
    fitted = FittedModel(
        model=model, head=head, readout=ClassReadout(tuple("abcdef"[:n_classes])), recipe=bag.recipe,
        recipe_sha256=bag.recipe_sha256, trained_on=(), settings=QUICK, seed=0,
    )  # fmt: skip
    return ExplanationTarget(fitted=fitted, bag=bag, quantity=quantity(fitted, fitted.classes[1]))


def physically(target, keep):
    """The definition: the head on a bag that holds only these tiles."""
    with torch.inference_mode():
        features = target.features[:, torch.from_numpy(np.flatnonzero(keep))]
        mask = torch.ones(features.shape[:2], dtype=torch.bool)
        return target.fitted.head(features, mask).logits[0].log_softmax(-1)
