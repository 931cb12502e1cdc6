import subprocess
import sys

import pytest
import torch
from torch import nn

from mil.learning.adamw import AdamW


def trained(make_optimiser, end_epoch):
    """Weights after four epochs; the last layer has no gradient before the third step, one weight never."""
    torch.manual_seed(3)
    first, last = nn.Linear(5, 4), nn.Linear(4, 1)
    weights = [*first.parameters(), nn.Parameter(torch.ones(2)), *last.parameters()]
    optimiser = make_optimiser(weights)
    for epoch in range(4):
        for number in range(3):
            optimiser.zero_grad()
            hidden = torch.tanh(first(torch.randn(7, 5)))
            late = epoch > 0 or number == 2
            loss = (last(hidden) if late else hidden).square().mean()
            loss.backward()
            optimiser.step()
        end_epoch(optimiser)
    return weights


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_it_is_torchs_to_the_bit(weight_decay):
    ours = trained(
        lambda weights: AdamW(weights, rate=0.01, weight_decay=weight_decay, epochs=4),
        lambda optimiser: optimiser.end_epoch(),
    )
    schedules = []

    def theirs(weights):
        optimiser = torch.optim.AdamW(weights, lr=0.01, weight_decay=weight_decay, fused=True)
        schedules.append(torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 4))
        return optimiser

    for a, b in zip(ours, trained(theirs, lambda _: schedules[0].step()), strict=True):
        assert torch.equal(a, b)


def test_training_loads_no_compiler():
    code = (
        "import sys, torch; from tests.mil.made import made_cohort; import mil; "
        "from mil.learning.crossval import fit_cases; cohort = made_cohort((2, 2)); "
        "fit_cases('abmil', cohort.cases, cohort.classes, mil.FitSettings(epochs=1), 0); "
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
