"""A step weighs all that it lowers: the loss of the bag, and the head's own."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from mil.heads.batches import collate
from mil.heads.head import HeadSettings
from mil.heads.registry import build_head
from mil.settings import FitSettings
from mil.tasks.diagnosis_objective import ClassObjective, StepPart
from tests.mil.made import made_cohort

PLAIN = FitSettings(precision="fp32", dropout=0.0)


@pytest.mark.parametrize("model", ["clam-sb", "clam-mb", "dsmil", "abmil"])
def test_a_bag_weighs_as_much_in_the_heads_own_loss_as_in_the_other(model):
    torch.manual_seed(0)
    head = build_head(model, HeadSettings(dim=5, n_outputs=3, width=8, dropout=0.0)).train()
    bags = [torch.randn(n, 5).numpy() for n in (7, 20, 4)]
    labels, weights = torch.tensor([0, 2, 1]), torch.tensor([0.0, 2.5, 0.5])
    wanted = 0.0
    for bag, label, weight in zip(bags, labels, weights, strict=True):
        batch = collate([bag])
        output = head(*batch)
        loss = cross_entropy(output.logits, label[None])
        loss = loss + head.auxiliary_loss(output, label[None], batch.mask).sum()
        wanted += float(weight * loss.detach()) / 3
    still = torch.optim.SGD(head.parameters(), lr=0.0)
    cohort = made_cohort()
    objective = ClassObjective(cohort.cases, (), cohort.classes)
    loss = objective._train_step(head, still, [StepPart(collate(bags), labels, weights)], PLAIN)
    assert loss == pytest.approx(wanted, rel=1e-5)
