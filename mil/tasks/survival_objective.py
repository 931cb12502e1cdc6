"""Training for survival: the case is the unit, its logits are the mean of its slides'."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from features.threads import one_thread
from mil.data.case import Case
from mil.data.encoding import ColumnEncoding
from mil.data.outcomes import Outcomes, outcomes_of
from mil.errors import FitError
from mil.evaluation.arrays import Ints
from mil.heads.batches import (
    TILES_AT_ONCE,
    UNREADY,
    Batch,
    Features,
    ReadyBags,
    ReadyBatch,
    alike,
    draw,
)
from mil.heads.head import Head, Training
from mil.learning.adamw import AdamW
from mil.learning.epochs import autocast, run_bags
from mil.learning.losses import (
    cox_efron,
    discrete_survival_losses,
    discrete_survival_nll,
)
from mil.learning.objective import Objective
from mil.settings import FitSettings
from mil.tasks.risk_model import (
    RiskModel,
    event_observed,
    fit_hazard_ratio,
    fit_interval_hazards,
    interval_cuts,
    interval_index,
)
from mil.tasks.tile_objective import TileObjective

TILE_INTERVALS = 4  # of the time, where single tiles learn

# Cases that a step of the Cox loss compares with each other. A comparison within any random part is a
# likelihood of its own (L. Goldstein, B. Langholz, Ann Stat 1992), but small parts tell little: over 8
# planted cohorts of 40, steps of 4, 8, 16 and 32 cases gave abmil a mean C of .64, .68, .68 and .70, mean
# pooling .75 to .76, and all cases at once no more than 32.
RISK_SET = 32


@dataclass(frozen=True, eq=False)
class FollowedCases:
    """Cases with their follow-up.

    Attributes:
        bags: one array (N, D) per slide, for each case.
        outcomes: one per case.
    """

    bags: Sequence[Sequence[Features]]
    outcomes: Outcomes


class SurvivalObjective(Objective):
    """Cox's partial likelihood with Efron's ties, or the likelihood of discrete times.

    Every case weighs the same, however many slides it has.

    Args:
        train: cases to learn from, with time and label.
        valid: further training cases to choose the epoch by.
        encoding: how clinical columns become a row, in place of tiles.
        intervals: parts of the time with a hazard each; None for Cox's likelihood.

    Raises:
        FitError: no training case has an event, or too few distinct times.
    """

    def __init__(
        self,
        train: Sequence[Case],
        valid: Sequence[Case],
        encoding: ColumnEncoding | None = None,
        intervals: int | None = None,
    ) -> None:
        self.train = FollowedCases(_bags(train, encoding), outcomes_of(train))
        if not self.train.outcomes.event.any():
            raise FitError("No training case has an event. Use fewer folds.")
        self.valid = FollowedCases(_bags(valid, encoding), outcomes_of(valid))
        self.cuts = interval_cuts(self.train.outcomes, intervals) if intervals else None
        names = ("risk",) if self.cuts is None else tuple(f"to {cut:g}" for cut in self.cuts)
        self.outputs = names
        self.slides = [bag for bags in self.train.bags for bag in bags]
        self.inner_slides = [bag for bags in self.valid.bags for bag in bags]
        self.counts = torch.tensor([len(self.train.bags)], dtype=torch.float32)
        self.validates = bool(valid)

    def training(self, seed: int) -> Training:
        """Times and events of the slides' cases."""
        n_slides = [len(bags) for bags in self.train.bags]
        weights = np.repeat([1 / n for n in n_slides], n_slides)
        return Training(
            features=self.slides,
            labels=np.repeat(self.train.outcomes.event.astype(np.int64), n_slides),
            weights=weights / weights.mean(),
            cases=np.repeat(np.arange(len(n_slides)), n_slides),
            seed=seed,
            time=np.repeat(self.train.outcomes.time, n_slides),
        )

    def epoch(
        self,
        head: Head,
        settings: FitSettings,
        rng: np.random.Generator,
        optimizer: AdamW,
    ) -> list[float]:
        """All cases once, a risk set or a few cases per step."""
        size = RISK_SET if self.cuts is None else settings.batch_bags
        losses = []
        for chosen in _draw_steps(self.train.outcomes, size, rng):
            optimizer.zero_grad()
            bags = [
                [draw(bag, settings.train_tiles, rng) for bag in self.train.bags[int(i)]]
                for i in chosen
            ]
            logits = case_logits(head, bags, settings, self.ready)
            loss = self._loss(logits, self.train.outcomes[chosen])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(float(loss.detach()))
        return losses

    @torch.inference_mode()
    def validate(self, head: Head, settings: FitSettings) -> float:
        """The loss over all tiles of the inner validation cases, compared with each other."""
        head.eval()
        logits = case_logits(head, self.valid.bags, settings, self.ready)
        return float(self._loss(logits, self.valid.outcomes))

    @torch.inference_mode()
    def readout(self, head: Head, settings: FitSettings) -> RiskModel:
        """How the head's logits lie among those of its training cases."""
        with one_thread():
            exact = FitSettings(chunk_tiles=settings.chunk_tiles, precision="fp32")
            logits = case_logits(head, self.train.bags, exact).double().numpy()
        if self.cuts is None:
            return fit_hazard_ratio(logits, self.train.outcomes)
        return fit_interval_hazards(self.cuts, logits)

    def _loss(self, logits: Tensor, outcomes: Outcomes) -> Tensor:
        """The mean loss per event (Cox), or per case."""
        time, event = torch.from_numpy(outcomes.time), torch.from_numpy(outcomes.event)
        if self.cuts is None:
            return cox_efron(logits[:, 0], time, event) / max(1, int(event.sum()))
        interval = torch.from_numpy(interval_index(outcomes, self.cuts))
        observed = torch.from_numpy(event_observed(outcomes, self.cuts))
        return discrete_survival_nll(logits, interval, observed)


class HazardTileObjective(TileObjective):
    """The likelihood of survival in intervals with as many training events in each.

    A batch of tiles is no risk set: its tiles come from a few cases and count none of the others who are
    still observed, so that Cox's partial likelihood would compare the wrong sets. The likelihood of discrete
    times (M. Gensheimer, B. Narasimhan, PeerJ 2019) is a sum over cases and needs no risk set. Every case
    weighs the same.

    Args:
        train: cases to learn from, with time and label; the intervals are taken from their events.

    Raises:
        FitError: the events do not fill the intervals.
    """

    def __init__(self, train: Sequence[Case]) -> None:
        outcomes = outcomes_of(train)
        times = np.unique(outcomes.time[outcomes.event])
        try:
            self.cuts = interval_cuts(outcomes, TILE_INTERVALS)
        except (FitError, IndexError) as error:  # IndexError: no event at all
            raise FitError(
                f"Fine-tuning for survival learns a hazard for each of {TILE_INTERVALS} intervals with as "
                f"many events in each; the training cases have events at {len(times)} distinct times. Use "
                "fewer folds, or add cases with an event."
            ) from error
        self.outputs = tuple(f"to {cut:g}" for cut in self.cuts)

    def targets(self, cases: Sequence[Case]) -> Tensor:
        """(n, 2) of the last interval that each case reached, and 1 where its event was observed in it."""
        outcomes = outcomes_of(cases)
        interval = interval_index(outcomes, self.cuts)
        observed = event_observed(outcomes, self.cuts)
        return torch.from_numpy(np.stack([interval, observed.astype(np.int64)], axis=1))

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(B,) negative log likelihood of each tile's case."""
        return discrete_survival_losses(logits, targets[:, 0], targets[:, 1].bool())


def case_logits(
    head: Head,
    bags: Sequence[Sequence[Features]],
    settings: FitSettings,
    ready: ReadyBags = UNREADY,
) -> Tensor:
    """(n, C) the mean over each case's slides.

    Args:
        head: to be run.
        bags: (N, D) features per slide, for each case.
        settings: chunks and precision.
        ready: bags that the head has standardised in this precision.
    """
    slides = [bag for case_bags in bags for bag in case_bags]
    order, logits = [], []
    for members in alike([len(bag) for bag in slides], settings.chunk_tiles or TILES_AT_ONCE):
        group: Batch | ReadyBatch | Features = slides[members[0]]
        if not 0 < settings.chunk_tiles < len(slides[members[0]]):
            group = ready.collate([slides[i] for i in members])
        with autocast(settings):
            output, _ = run_bags(head, group, settings)
        order += members
        logits.append(output.logits.float())
    counts = [len(case_bags) for case_bags in bags]
    case = torch.arange(len(bags)).repeat_interleave(torch.tensor(counts))[torch.tensor(order)]
    stacked = torch.cat(logits)  # (slides, C)
    sums = stacked.new_zeros(len(bags), stacked.shape[1]).index_add(0, case, stacked)
    return sums / torch.tensor(counts).unsqueeze(1)


def _bags(cases: Sequence[Case], encoding: ColumnEncoding | None) -> list[list[Features]]:
    """The bags of each case; with an encoding, the row of its clinical columns, once."""
    if encoding:
        return [[encoding.row(case.name, case.other)] for case in cases]
    return [[bag.features for bag in case.bags] for case in cases]


def _draw_steps(outcomes: Outcomes, size: int, rng: np.random.Generator) -> Iterator[Ints]:
    """Cases in groups of about ``size``, each with its share of the events."""
    n_steps = max(1, min(round(len(outcomes) / size), int(outcomes.event.sum())))
    order = rng.permutation(len(outcomes))
    order = order[np.argsort(~outcomes.event[order], kind="stable")]
    for step in range(n_steps):
        yield order[step::n_steps]
