"""Every head of the registry keeps every law, and every law catches a head that breaks it."""

from functools import partial

import pytest
import torch
from torch import nn

from mil.heads.attention import AttentionPooling
from mil.heads.head import Head, HeadSettings
from mil.heads.registry import HEADS
from tests import laws
from tests.laws import LAWS


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("name", HEADS)
def test_head_keeps_the_law(name, n_classes, law):
    law(partial(HEADS[name], HeadSettings(dim=7, n_classes=n_classes, width=10, dropout=0.2)))


def replaced(output, **changes):
    return type(output)(**{**vars(output), **changes})


class IgnoresMask(AttentionPooling):
    """Gives weight to padding, which the base has set to zero."""

    def pool(self, features, mask, coords):
        return super().pool(features, torch.ones_like(mask), coords)


class CountsPadding(AttentionPooling):
    """Divides by the length of the batch, not of the bag."""

    def pool(self, features, mask, coords):
        output = super().pool(features, mask, coords)
        return replaced(output, logits=output.logits / mask.shape[1])


class LetsPaddingIn(AttentionPooling):
    """Trusts that zero weight removes padding; zero times NaN is NaN."""

    def forward(self, features, mask, coords=None):
        return self.pool(features.float(), mask, coords)


class LosesOnPadding(AttentionPooling):
    """Has a loss of its own that averages over padding as well."""

    def auxiliary_loss(self, output, labels, mask):
        return output.attention.square().mean()


class WeighsTwice(AttentionPooling):
    """Attention that sums to 2."""

    def pool(self, features, mask, coords):
        output = super().pool(features, mask, coords)
        return replaced(output, attention=2 * output.attention)


class OrderSensitive(AttentionPooling):
    """The first tile counts double."""

    def pool(self, features, mask, coords):
        output = super().pool(features, mask, coords)
        first = output.tile_logits[:, 0]
        return replaced(output, logits=output.logits + first)


class NeedsTwoTiles(AttentionPooling):
    """Divides by N - 1."""

    def pool(self, features, mask, coords):
        output = super().pool(features, mask, coords)
        others = (mask.sum(dim=1, keepdim=True) - 1).float()
        return replaced(output, logits=output.logits / others)


class StochasticInEval(AttentionPooling):
    """Drops in evaluation, too."""

    def pool(self, features, mask, coords):
        return super().pool(nn.functional.dropout(features, 0.5, training=True), mask, coords)


class MixesBags(AttentionPooling):
    """Compares a bag with the others of its batch."""

    def pool(self, features, mask, coords):
        output = super().pool(features, mask, coords)
        return replaced(output, logits=output.logits - output.logits.mean(dim=0))


class TakesAnything(AttentionPooling):
    """Makes the best of what it is given."""

    def forward(self, features, mask, coords=None):
        if features.ndim == 2:
            features, mask = features.unsqueeze(0), mask.reshape(1, -1)
        mask = mask.bool()
        features = features.masked_fill(~mask.unsqueeze(-1), 0.0)
        output = self.pool(features, mask, coords)
        return replaced(output, logits=output.logits.nan_to_num())


class DropsGradient(AttentionPooling):
    """The attention is never learnt."""

    def score(self, tiles):
        return super().score(tiles).detach()


class ForgetsState(AttentionPooling):
    """Keeps a number that is neither a parameter nor a buffer."""

    def __init__(self, settings):
        super().__init__(settings)
        self.temperature = torch.rand(1)

    def score(self, tiles):
        return super().score(tiles) / self.temperature


class ForgetsClasses(AttentionPooling):
    """Takes the classes' shares in ``prepare`` and does not save them."""

    share = 1.0

    def prepare(self, tiles, class_counts):
        self.share = class_counts / class_counts.sum()

    def pool(self, features, mask, coords):
        output = super().pool(features, mask, coords)
        return replaced(output, logits=output.logits * self.share)


class Overflows(AttentionPooling):
    """Softmax written out without taking the maximum away."""

    def pool(self, features, mask, coords):
        output = super().pool(features, mask, coords)
        return replaced(output, logits=output.logits.exp())


class RefusesHalf(AttentionPooling):
    """Answers half precision in another way."""

    def forward(self, features, mask, coords=None):
        output = super().forward(features, mask, coords)
        return replaced(output, logits=output.logits * (2 if features.dtype == torch.half else 1))


class TakesLabels(AttentionPooling):
    def forward(self, features, mask, coords=None, labels=None):
        return super().forward(features, mask, coords)


class ReturnsTuple(AttentionPooling):
    def pool(self, features, mask, coords):
        output = super().pool(features, mask, coords)
        return output.logits, output.attention


class PaddingScoresZero(AttentionPooling):
    """Scores that do not tell padding from tiles."""

    def pool(self, features, mask, coords):
        output = super().pool(features, mask, coords)
        return replaced(output, scores=output.scores.masked_fill(~mask.unsqueeze(1), 0.0))


BROKEN = [
    (laws.law_output_is_whole, ReturnsTuple),
    (laws.law_output_is_whole, PaddingScoresZero),
    (laws.law_padding_changes_nothing, IgnoresMask),
    (laws.law_padding_changes_nothing, CountsPadding),
    (laws.law_padding_changes_nothing, LetsPaddingIn),
    (laws.law_padding_changes_nothing, LosesOnPadding),
    (laws.law_attention_is_a_share, IgnoresMask),
    (laws.law_attention_is_a_share, WeighsTwice),
    (laws.law_order_changes_nothing, OrderSensitive),
    (laws.law_one_tile_is_a_bag, NeedsTwoTiles),
    (laws.law_evaluation_is_deterministic, StochasticInEval),
    (laws.law_batch_equals_loop, MixesBags),
    (laws.law_batch_equals_loop, CountsPadding),
    (laws.law_bag_without_tiles_is_refused, TakesAnything),
    (laws.law_unbatched_is_refused, TakesAnything),
    (laws.law_mask_is_bool_and_fits, TakesAnything),
    (laws.law_gradients_reach_every_parameter, DropsGradient),
    (laws.law_saving_is_identity, ForgetsState),
    (laws.law_saving_is_identity, ForgetsClasses),
    (laws.law_large_features_stay_finite, Overflows),
    (laws.law_half_precision_is_taken, RefusesHalf),
    (laws.law_no_label_goes_in, TakesLabels),
]


@pytest.mark.parametrize(
    ("law", "broken"), BROKEN, ids=[f"{law.__name__}-{head.__name__}" for law, head in BROKEN]
)
def test_law_catches_the_broken_head(law, broken):
    with pytest.raises(AssertionError):
        law(partial(broken, HeadSettings(dim=7, n_classes=3, width=10)))


def test_every_law_has_a_head_it_catches():
    assert {law for law, _ in BROKEN} == set(LAWS)


def test_every_law_is_in_the_suite():
    assert {each for name, each in vars(laws).items() if name.startswith("law_")} == set(LAWS)


def test_positional_head_may_depend_on_order():
    class Positional(OrderSensitive):
        positional = True

    laws.law_order_changes_nothing(partial(Positional, HeadSettings(dim=7, n_classes=3)))


def test_heads_of_the_registry_are_heads():
    assert all(issubclass(head, Head) for head in HEADS.values())
