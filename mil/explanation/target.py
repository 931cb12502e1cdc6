"""What is explained: a number that a model computes, as a function of a bag's tiles."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from features.bags.bag import Bag
from features.recipe import is_vector
from mil.errors import FitError
from mil.explanation.quantity import Quantity, predicted_name, quantity
from mil.heads.batches import collate
from mil.heads.ensemble import members_of
from mil.heads.head import Head
from mil.heads.layers import masked_softmax
from mil.learning.fitted import FittedModel, run_head

TILES_AT_ONCE = 1 << 17  # over all subsets in one batch: some 64 MB at a width of 128
WIDEST_SCORES = (
    600.0  # between tiles; the weights of higher ones would leave the others none in 64 bits
)


@dataclass(frozen=True, kw_only=True, eq=False)  # compared by identity, so that caches can hold it
class ExplanationTarget:
    """Why does this model compute this number from this bag?

    An ensemble of classifiers computes the logarithm of its members' mean probability; its score is taken
    from that.

    Attributes:
        fitted: the model.
        bag: made by the model's own recipe.
        quantity: the number, as a function of the logits.
    """

    fitted: FittedModel
    bag: Bag
    quantity: Quantity

    @property
    def name(self) -> str:
        """What positive scores speak for."""
        return self.quantity.name

    @cached_property
    def predicted(self) -> str:
        """The name that is explained by default: of classes the one that the model predicts."""
        return predicted_name(self.fitted, run_head(self.fitted, self.bag).logits[0])

    @cached_property
    def features(self) -> Tensor:
        """(1, N, D) float32."""
        return collate([self.bag.features]).features.float()

    @cached_property
    def baseline(self) -> Tensor:
        """(D,) the mean training tile; for an ensemble the mean over its members."""
        return torch.stack([head.shift for head in members_of(self.fitted.head)]).mean(dim=0)

    def with_features(self, features: Tensor) -> "ExplanationTarget":
        """The same target for the same tiles with other features (1, N, D)."""
        return replace(self, bag=replace(self.bag, features=features[0].numpy()))

    def score(self, features: Tensor) -> Tensor:
        """(B,) scores of whole bags (B, N, D) with N of 1 or more; differentiable."""
        mask = torch.ones(features.shape[:2], dtype=torch.bool)
        return self.quantity.score(self.fitted.head(features, mask).logits)

    @torch.inference_mode()
    def subset_logits(self, keep: NDArray[np.bool_]) -> Tensor:
        """(K, C) normalised logits of K subsets (K, N) of the bag's tiles.

        Nothing replaces a tile that is left out: the bag is shorter. An empty subset counts as a bag of
        the mean training tile.
        """
        subsets = torch.from_numpy(keep)
        filled = subsets.any(dim=1)
        logits = torch.empty(len(subsets), self.fitted.head.settings.n_outputs)
        if filled.any():
            logits[filled] = self.quantity.merge([run(subsets[filled]) for run in self._runners])
        if not filled.all():
            bag = self.baseline.view(1, 1, -1)
            logits[~filled] = self.fitted.head(bag, torch.ones(1, 1, dtype=torch.bool)).logits
        return self.quantity.normalise(logits)

    def subset_scores(self, keep: NDArray[np.bool_]) -> NDArray[np.float64]:
        """(K,) scores of K subsets (K, N) of the tiles."""
        return self.quantity.score(self.subset_logits(keep).double()).numpy()

    def subset_answers(self, keep: NDArray[np.bool_]) -> NDArray[np.float64]:
        """(K,) answers to K subsets (K, N) of the tiles: probabilities of a class, or risks."""
        return self.quantity.answer(self.subset_logits(keep)).numpy()

    @torch.inference_mode()
    def order_answers(
        self, orders: NDArray[np.int64], counts: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Answers as tiles leave the bag, and as they come into it, in given orders.

        Args:
            orders: (R, N) the tiles, first to last.
            counts: (S,) from 0 to N - 1.

        Returns:
            (R, S) answers without the first ``count`` tiles, and (R, S) to the first ``count + 1`` alone.
        """
        if any(sums is None for sums in self._sums):
            rank = np.argsort(orders, axis=1)[:, None, :]  # (R, 1, N)
            count = counts[None, :, None]
            left, come = (
                self.subset_answers(keep.reshape(-1, orders.shape[1])).reshape(len(orders), -1)
                for keep in (rank >= count, rank <= count)
            )
            return left, come
        of_members = [sums.along(orders, counts) for sums in self._sums if sums]
        left, come = (
            self.quantity.answer(self.quantity.normalise(self.quantity.merge(list(logits)))).numpy()
            for logits in zip(*of_members, strict=True)
        )
        return left.reshape(len(orders), -1), come.reshape(len(orders), -1)

    @cached_property
    def _sums(self) -> "list[TileSums | None]":
        """For each member its sums over tiles; None where its logits are none."""
        return [tile_sums(head, self.features) for head in members_of(self.fitted.head)]

    @cached_property
    def _runners(self) -> "list[Callable[[Tensor], Tensor]]":
        """For each member, from subsets (K, N) to logits (K, C); shared work is done once."""
        return [_subset_runner(head, self.features) for head in members_of(self.fitted.head)]


def explanation_target(fitted: FittedModel, bag: Bag, name: str | None = None) -> ExplanationTarget:
    """What a model computes of a bag, ready to be explained.

    Args:
        fitted: the model.
        bag: made by the model's own recipe.
        name: a class, or ``risk`` of a model of survival; the predicted class, or the risk, if not given.

    Raises:
        FitError: the model reads no tiles, knows no such name, or the bag does not suit it or has no tiles.
    """
    if is_vector(bag.recipe):
        raise FitError(
            f"The bag of {bag.slide} is one vector: there are no tiles, and nothing to map. Explain a run on "
            "bags of tiles."
        )
    if fitted.encoding is not None:
        raise FitError(
            f"Model {fitted.model} reads the table and no tiles: there is no tile to explain. Choose a "
            "model that reads bags."
        )
    dim = fitted.head.settings.dim
    if bag.features.shape[1] != dim:
        raise FitError(
            f"{bag.slide}: tiles have {bag.features.shape[1]} features, the model reads {dim}. Give a bag of "
            "the run's own store."
        )
    if not (len(bag) and np.isfinite(bag.features).all()):
        raise FitError(
            f"{bag.slide}: the bag has no tile, or values that are not finite. Extract the slide again."
        )
    if name is None:
        name = predicted_name(fitted, run_head(fitted, bag).logits[0])
    return ExplanationTarget(fitted=fitted, bag=bag, quantity=quantity(fitted, name))


@dataclass(frozen=True)
class TileSums:
    """A head whose logits are the weighted mean of those of tiles.

    Attributes:
        weights: (A, N) float64, of one map or one per class, the highest 1.
        weighted: (C, N) weights times logits.
    """

    weights: Tensor
    weighted: Tensor

    def along(self, orders: NDArray[np.int64], counts: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Logits (R * S, C) without the first tiles of orders (R, N), and with those alone: running sums."""
        order, count = torch.from_numpy(orders), torch.from_numpy(counts)
        weights, weighted = self.weights[:, order], self.weighted[:, order]  # (A or C, R, N)
        come = weighted.cumsum(-1)[..., count] / weights.cumsum(-1)[..., count]
        rest = (
            order.shape[1] - 1 - count
        )  # summed from the end: a difference would lose small weights
        left = weighted.flip(-1).cumsum(-1)[..., rest] / weights.flip(-1).cumsum(-1)[..., rest]
        return tuple(logits.flatten(1).T.float() for logits in (left, come))  # type: ignore[return-value]


@torch.inference_mode()
def tile_sums(head: Head, features: Tensor) -> TileSums | None:
    """The sums of a head over tiles (1, N, D); None where its logits are no such sum."""
    if not head.adds_up:
        return None
    whole = head(features, torch.ones(features.shape[:2], dtype=torch.bool))
    scores = whole.scores[0].double()
    scores -= scores.amax(dim=-1, keepdim=True)
    if scores.amin() < -WIDEST_SCORES:
        return None
    assert whole.tile_logits is not None
    weights = scores.exp()
    return TileSums(weights, weights * whole.tile_logits[0].double().T)


@torch.inference_mode()
def _subset_runner(head: Head, features: Tensor) -> Callable[[Tensor], Tensor]:
    """One member's logits of subsets; its tiles are embedded once, or scored once where they add up."""
    mask = torch.ones(features.shape[:2], dtype=torch.bool)
    if head.adds_up:
        whole = head(features, mask)
        scores, tile_logits = whole.scores, whole.tile_logits
        assert tile_logits is not None

        def run(keep: Tensor) -> Tensor:
            shares = masked_softmax(scores.expand(len(keep), -1, -1), keep)  # (K, A, N)
            per_class = shares.expand(-1, tile_logits.shape[-1], -1)  # (K, C, N)
            return torch.einsum("kcn,nc->kc", per_class, tile_logits[0])

    elif "embed" in dict(head.named_children()):
        tiles = head.embed(head.standardise(features, mask))  # (1, N, E)
        after = copy.deepcopy(head)
        after.embed = nn.Identity()

        def run(keep: Tensor) -> Tensor:
            logits: Tensor = after.pool(tiles.expand(len(keep), -1, -1), keep, None).logits
            return logits

    else:

        def run(keep: Tensor) -> Tensor:
            logits: Tensor = head(features.expand(len(keep), -1, -1), keep).logits
            return logits

    at_once = max(1, TILES_AT_ONCE // features.shape[1])
    return lambda keep: torch.cat([run(part) for part in torch.split(keep, at_once)])
