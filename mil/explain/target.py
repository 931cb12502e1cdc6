"""What is explained: how strongly a model holds one class, as a function of a bag's tiles."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from features.bags.bag import Bag
from mil.errors import FitError
from mil.heads.ensemble import mean_logits, members_of
from mil.heads.head import Head
from mil.heads.layers import masked_softmax
from mil.learning.batches import collate
from mil.learning.fitted import Fitted
from mil.learning.prediction import run_head

TILES_AT_ONCE = (
    1 << 17
)  # of all selections that are answered together: some 64 MB at a width of 128


@dataclass(frozen=True, kw_only=True, eq=False)  # itself alone: what is known of it can be kept
class ExplanationTarget:
    """Why does this model say that of this bag?

    The number that is explained is the *margin* of the class: its logit less the mean of all classes'
    logits. Unlike a probability it does not saturate, and unlike a bare logit it is the same whatever is
    added to all of them. An ensemble answers with the logarithm of its members' mean probability; its
    margin is taken from those.

    Attributes:
        fitted: the model.
        bag: of its recipe.
        target: index of the class.
    """

    fitted: Fitted
    bag: Bag
    target: int

    @property
    def class_name(self) -> str:
        """The class that is asked about."""
        return self.fitted.classes[self.target]

    @cached_property
    def called(self) -> str:
        """The class that the model calls."""
        return self.fitted.classes[int(run_head(self.fitted, self.bag).logits[0].argmax())]

    @cached_property
    def features(self) -> Tensor:
        """(1, N, D) float32."""
        return collate([self.bag.features]).features.float()

    @cached_property
    def baseline(self) -> Tensor:
        """(D,) the mean training tile, of an ensemble the mean of its members'."""
        return torch.stack([head.shift for head in members_of(self.fitted.head)]).mean(dim=0)

    def about(self, features: Tensor) -> "ExplanationTarget":
        """The same question of the same tiles with other features (1, N, D)."""
        return replace(self, bag=replace(self.bag, features=features[0].numpy()))

    def margin(self, features: Tensor) -> Tensor:
        """(B,) of whole bags (B, N, D); it has a gradient."""
        mask = torch.ones(features.shape[:2], dtype=torch.bool)
        return self.margin_of(self.fitted.head(features, mask).logits)

    def margin_of(self, logits: Tensor) -> Tensor:
        """(..., C) -> (...)."""
        return logits[..., self.target] - logits.mean(dim=-1)

    @torch.inference_mode()
    def logits_of_kept(self, keep: NDArray[np.bool_]) -> Tensor:
        """(K, C) the model's answers to K selections (K, N) of the bag's tiles.

        Nothing is put in place of a tile that is left out: the bag is shorter. A selection of no tile is
        answered as a bag of the mean training tile.
        """
        kept = torch.from_numpy(keep)
        filled = kept.any(dim=1)
        answers = torch.empty(len(kept), len(self.fitted.classes))
        if filled.any():
            answers[filled] = mean_logits([answer(kept[filled]) for answer in self._answers])
        if not filled.all():
            bag = self.baseline.view(1, 1, -1)
            answers[~filled] = self.fitted.head(bag, torch.ones(1, 1, dtype=torch.bool)).logits
        return answers.log_softmax(dim=-1)

    def margin_of_kept(self, keep: NDArray[np.bool_]) -> NDArray[np.float64]:
        """(K,) margins of K selections (K, N)."""
        return self.margin_of(self.logits_of_kept(keep).double()).numpy()

    def probability_of_kept(self, keep: NDArray[np.bool_]) -> NDArray[np.float64]:
        """(K,) probabilities of the class, of K selections (K, N)."""
        return self.logits_of_kept(keep)[:, self.target].double().exp().numpy()

    @cached_property
    def _answers(self) -> "list[Callable[[Tensor], Tensor]]":
        """For each member, from selections (K, N) to logits (K, C); what every selection shares is kept."""
        return [_answer(head, self.features) for head in members_of(self.fitted.head)]


def explanation_target(
    fitted: Fitted, bag: Bag, class_name: str | None = None
) -> ExplanationTarget:
    """Ask why a class is held: the one the model calls, or the one named.

    Raises:
        FitError: the model does not read tiles, knows no such class, or the bag does not suit it.
    """
    if fitted.encoding is not None:
        raise FitError(
            f"Model {fitted.model} reads the table and no tiles: there is no tile to explain. Pass "
            "--model with one that reads bags."
        )
    dim = fitted.head.settings.dim
    if bag.features.shape[1] != dim:
        raise FitError(
            f"{bag.slide}: tiles have {bag.features.shape[1]} features, the model reads {dim}. Give a bag of "
            "the run's own store."
        )
    if not (len(bag) and np.isfinite(bag.features).all()):
        raise FitError(
            f"{bag.slide}: the bag has no tile, or values that are no numbers. Extract the slide again."
        )
    if class_name not in (None, *fitted.classes):
        raise FitError(f"No class {class_name!r}; the model knows {', '.join(fitted.classes)}.")
    class_name = class_name or ExplanationTarget(fitted=fitted, bag=bag, target=0).called
    return ExplanationTarget(fitted=fitted, bag=bag, target=fitted.classes.index(class_name))


@torch.inference_mode()
def _answer(head: Head, features: Tensor) -> Callable[[Tensor], Tensor]:
    """One fit's answers to selections; its tiles are embedded once, or scored once where they add up."""
    mask = torch.ones(features.shape[:2], dtype=torch.bool)
    if head.adds_up:
        whole = head(features, mask)
        scores, told = whole.scores, whole.tile_logits
        assert told is not None

        def answer(keep: Tensor) -> Tensor:
            shares = masked_softmax(scores.expand(len(keep), -1, -1), keep)  # (K, A, N)
            of_each = shares.expand(-1, told.shape[-1], -1)  # (K, C, N)
            return torch.einsum("kcn,nc->kc", of_each, told[0])

    elif "embed" in dict(head.named_children()):
        tiles = head.embed(head.standardise(features, mask))  # (1, N, E)
        after = copy.deepcopy(head)
        after.embed = nn.Identity()

        def answer(keep: Tensor) -> Tensor:
            logits: Tensor = after.pool(tiles.expand(len(keep), -1, -1), keep, None).logits
            return logits

    else:

        def answer(keep: Tensor) -> Tensor:
            logits: Tensor = head(features.expand(len(keep), -1, -1), keep).logits
            return logits

    at_once = max(1, TILES_AT_ONCE // features.shape[1])
    return lambda kept: torch.cat([answer(part) for part in torch.split(kept, at_once)])
