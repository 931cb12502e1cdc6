"""Every head of the registry keeps every law, and every law catches a head that breaks it."""

from functools import partial

import pytest
import torch
from torch import nn

from mil.heads import check_head, laws
from mil.heads.attention import AttentionPooling
from mil.heads.head import Head, HeadSettings
from mil.heads.laws import FAILURES, LAWS
from mil.heads.layers import masked_softmax
from mil.heads.registry import head_class
from mil.heads.table import MODELS


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("name", MODELS)
def test_head_keeps_the_law(name, n_classes, law):
    law(partial(head_class(name), HeadSettings(dim=7, n_outputs=n_classes, width=10, dropout=0.2)))


@pytest.mark.parametrize(
    "name", [name for name in MODELS if head_class(name).learns_from != "tiles"]
)
def test_head_with_one_output_keeps_the_laws(name):
    """As a risk is; what classifies tiles has no meaning then, nor has a tier's cross-entropy."""
    build = partial(head_class(name), HeadSettings(dim=7, n_outputs=1, width=10))
    for law in LAWS:
        if name != "dtfd" or law is not laws.law_gradients_reach_every_parameter:
            law(build)


def replaced(output, **changes):
    return type(output)(**{**vars(output), **changes})


class Plain(AttentionPooling):
    """Attention that does not say its tiles add up: what breaks it is then a law of its own."""

    adds_up = False


class IgnoresMask(Plain):
    """Gives weight to padding, which the base has set to zero."""

    def pool(self, features, mask, coords):
        return super().pool(features, torch.ones_like(mask), coords)


class CountsPadding(Plain):
    """Divides by the length of the batch, not of the bag."""

    def pool(self, features, mask, coords):
        output = super().pool(features, mask, coords)
        return replaced(output, logits=output.logits / mask.shape[1])


class LetsPaddingIn(Plain):
    """Trusts that zero weight removes padding; zero times NaN is NaN."""

    def forward(self, features, mask, coords=None):
        return self.pool(features.float(), mask, coords)


class LosesOnPadding(Plain):
    """Has a loss of its own that averages over padding as well."""

    def auxiliary_loss(self, output, labels, mask):
        return output.attention.square().mean(dim=(1, 2))


class WeighsTwice(Plain):
    """Attention that sums to 2."""

    def pool(self, features, mask, coords):
        output = super().pool(features, mask, coords)
        return replaced(output, attention=2 * output.attention)


class OrderSensitive(Plain):
    """The first tile counts double."""

    def pool(self, features, mask, coords):
        output = super().pool(features, mask, coords)
        return replaced(output, logits=output.logits + features[:, 0, :1])


class ReadsPlaces(Plain):
    """Knows where its tiles lie, and does not say so."""

    def pool(self, features, mask, coords):
        output = super().pool(features, mask, coords)
        place = 0 if coords is None else coords.float().mean()
        return replaced(output, logits=output.logits + place)


class StopsEarly(Plain):
    """Sees the first thousand tiles alone."""

    def pool(self, features, mask, coords):
        return super().pool(features, mask & (torch.arange(mask.shape[1]) < 1000), coords)


class StopsEarlyInOrder(StopsEarly):
    positional = True


class NeedsTwoTiles(Plain):
    """Divides by N - 1."""

    def pool(self, features, mask, coords):
        output = super().pool(features, mask, coords)
        others = (mask.sum(dim=1, keepdim=True) - 1).float()
        return replaced(output, logits=output.logits / others)


class StochasticInEval(Plain):
    """Drops in evaluation, too."""

    def pool(self, features, mask, coords):
        return super().pool(nn.functional.dropout(features, 0.5, training=True), mask, coords)


class MixesBags(Plain):
    """Compares a bag with the others of its batch."""

    def pool(self, features, mask, coords):
        output = super().pool(features, mask, coords)
        return replaced(output, logits=output.logits - output.logits.mean(dim=0))


class TakesAnything(Plain):
    """Makes the best of what it is given."""

    def forward(self, features, mask, coords=None):
        if features.ndim == 2:
            features, mask = features.unsqueeze(0), mask.reshape(1, -1)
        mask = mask.bool()
        features = features.masked_fill(~mask.unsqueeze(-1), 0.0)
        output = self.pool(features, mask, coords)
        return replaced(output, logits=output.logits.nan_to_num())


class DropsGradient(Plain):
    """The attention is never learnt."""

    def score(self, tiles):
        return super().score(tiles).detach()


class ForgetsState(Plain):
    """Keeps a number that is neither a parameter nor a buffer."""

    def __init__(self, settings):
        super().__init__(settings)
        self.temperature = torch.rand(1)

    def score(self, tiles):
        return super().score(tiles) / self.temperature


class ForgetsClasses(Plain):
    """Takes the classes' shares in ``prepare`` and does not save them."""

    share = 1.0

    def prepare(self, tiles, class_counts):
        self.share = class_counts / class_counts.sum()

    def pool(self, features, mask, coords):
        output = super().pool(features, mask, coords)
        return replaced(output, logits=output.logits * self.share)


class Overflows(Plain):
    """Softmax written out without taking the maximum away."""

    def pool(self, features, mask, coords):
        output = super().pool(features, mask, coords)
        return replaced(output, logits=output.logits.exp())


class RefusesHalf(Plain):
    """Answers half precision in another way."""

    def forward(self, features, mask, coords=None):
        output = super().forward(features, mask, coords)
        return replaced(output, logits=output.logits * (2 if features.dtype == torch.half else 1))


class HidesTiles(Plain):
    """Learns, but says nothing of what it reads in the tiles."""

    def pool(self, features, mask, coords):
        return super().pool(features.detach(), mask, coords)


class LearnsFromPadding(Plain):
    """A term of zero whose gradient counts the padding."""

    def pool(self, features, mask, coords):
        output = super().pool(features, mask, coords)
        bias = self.classify.bias
        nothing = (bias - bias.detach()) * (~mask).sum()
        return replaced(output, logits=output.logits + nothing)


class MixesTypes(Plain):
    """Writes what may be half precision into single precision."""

    def score(self, tiles):
        scores = torch.zeros(*tiles.shape[:2], 1)
        every = torch.ones(tiles.shape[:2], dtype=torch.bool)
        scores[every] = super().score(tiles)[every]
        return scores


class BlowsUpInHalf(Plain):
    """Attention whose sum is lost where numbers are coarse."""

    def pool(self, features, mask, coords):
        output = super().pool(features, mask, coords)
        coarse = output.logits.dtype == torch.bfloat16
        return replaced(output, attention=output.attention * (2 if coarse else 1))


class ShortCut(Plain):
    """Leaves a step out where no gradient is recorded."""

    def score(self, tiles):
        return super().score(tiles) * (0 if torch.is_inference_mode_enabled() else 1)


class TakesLabels(Plain):
    def forward(self, features, mask, coords=None, labels=None):
        return super().forward(features, mask, coords)


class TakesMore(Plain):
    """Room for whatever else a caller may know."""

    def pool(self, features, mask, coords, **more):
        return super().pool(features, mask, coords)


class ReturnsTuple(Plain):
    def pool(self, features, mask, coords):
        output = super().pool(features, mask, coords)
        return output.logits, output.attention


class PaddingScoresZero(Plain):
    """Scores that do not tell padding from tiles."""

    def pool(self, features, mask, coords):
        output = super().pool(features, mask, coords)
        return replaced(output, scores=output.scores.masked_fill(~mask.unsqueeze(1), 0.0))


class DoesNotAddUp(AttentionPooling):
    """Says that its tiles add up, and answers double."""

    def pool(self, features, mask, coords):
        output = super().pool(features, mask, coords)
        return replaced(output, logits=2 * output.logits)


class ReportsAnother(AttentionPooling):
    """Reports as attention the reverse of what it pools by."""

    def merge(self, parts):
        output = super().merge(parts)
        reverse = masked_softmax(-output.scores, ~output.scores[:, 0].isinf())
        return replaced(output, attention=reverse)


class ForgetsChunks(AttentionPooling):
    """Answers from the last chunk alone."""

    def merge(self, parts):
        whole = super().merge(parts)
        return replaced(whole, logits=super().merge(parts[-1:]).logits)


class SaysLessInBrief(Plain):
    """Takes the first tile for the whole bag."""

    brief = staticmethod(lambda tiles: tiles[:1])


BROKEN = [
    (laws.law_brief_says_what_the_bag_says, SaysLessInBrief),
    (laws.law_output_is_whole, ReturnsTuple),
    (laws.law_output_is_whole, PaddingScoresZero),
    (laws.law_padding_changes_nothing, IgnoresMask),
    (laws.law_padding_changes_nothing, CountsPadding),
    (laws.law_padding_changes_nothing, LetsPaddingIn),
    (laws.law_padding_changes_nothing, LosesOnPadding),
    (laws.law_attention_is_a_share, IgnoresMask),
    (laws.law_attention_is_a_share, WeighsTwice),
    (laws.law_order_changes_nothing, OrderSensitive),
    (laws.law_coords_change_nothing, ReadsPlaces),
    (laws.law_long_bag_is_read_whole, OrderSensitive),
    (laws.law_long_bag_is_read_whole, StopsEarly),
    (laws.law_long_bag_is_read_whole, StopsEarlyInOrder),
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
    (laws.law_gradients_reach_the_tiles, HidesTiles),
    (laws.law_padding_teaches_nothing, LearnsFromPadding),
    (laws.law_padding_teaches_nothing, LosesOnPadding),
    (laws.law_padding_teaches_nothing, LetsPaddingIn),
    (laws.law_autocast_is_borne, MixesTypes),
    (laws.law_autocast_is_borne, BlowsUpInHalf),
    (laws.law_inference_mode_is_borne, ShortCut),
    (laws.law_no_label_goes_in, TakesLabels),
    (laws.law_no_label_goes_in, TakesMore),
    (laws.law_contributions_add_up, DoesNotAddUp),
    (laws.law_contributions_add_up, ReportsAnother),
    (laws.law_tiles_enter_by_their_embedding, OrderSensitive),
    (laws.law_chunks_are_the_whole, DoesNotAddUp),
    (laws.law_chunks_are_the_whole, ForgetsChunks),
    (laws.law_chunks_are_the_whole, ForgetsClasses),
    (laws.law_chunks_are_the_whole, OrderSensitive),
]
# Of these one law sees the fault, and no other does.
SEEN_BY_ONE = [
    DropsGradient, ForgetsState, ForgetsClasses, HidesTiles, LearnsFromPadding, MixesTypes, BlowsUpInHalf,
    ShortCut, TakesLabels, RefusesHalf, OrderSensitive, LosesOnPadding,
    DoesNotAddUp, ForgetsChunks, ReadsPlaces, StopsEarly, StopsEarlyInOrder, ReportsAnother, TakesMore,
]  # fmt: skip


@pytest.mark.parametrize(
    ("law", "broken"), BROKEN, ids=[f"{law.__name__}-{head.__name__}" for law, head in BROKEN]
)
def test_law_catches_the_broken_head(law, broken):
    with pytest.raises(FAILURES):
        law(partial(broken, HeadSettings(dim=7, n_outputs=3, width=10)))


@pytest.mark.parametrize("broken", SEEN_BY_ONE)
def test_report_names_the_broken_law_and_no_other(broken):
    with pytest.raises(AssertionError, match="The head breaks these laws:") as told:
        check_head(broken)
    named = {line.split(" ")[0] for line in str(told.value).splitlines()[1:]}
    assert named == {law.__name__ for law, head in BROKEN if head is broken}, str(told.value)


@pytest.mark.parametrize("name", ["abmil", "dtfd"])
def test_head_is_checked_as_class_as_factory_and_as_itself(name):
    shape = HeadSettings(dim=7, n_outputs=3, width=10)
    head = head_class(name)(shape)
    before = {key: value.clone() for key, value in head.state_dict().items()}
    for given in (head_class(name), partial(head_class(name), shape), head):
        check_head(given)
    assert all(torch.equal(value, before[key]) for key, value in head.state_dict().items())


def test_all_broken_laws_are_told_at_once_with_what_was_seen():
    with pytest.raises(AssertionError) as told:
        check_head(MixesBags(HeadSettings(dim=7, n_outputs=3, width=10)))
    assert "law_batch_equals_loop (3 classes): logits of bag 0 differ by" in str(told.value)
    with pytest.raises(AssertionError) as told:
        check_head(TakesAnything)
    assert "law_unbatched_is_refused (2 classes)" in str(told.value)
    assert "law_mask_is_bool_and_fits (5 classes)" in str(told.value)


def test_error_of_the_head_is_a_broken_law_too():
    with pytest.raises(AssertionError, match=r"law_autocast_is_borne \(2 classes\): RuntimeError"):
        check_head(MixesTypes)


def test_only_what_is_offered_is_found_in_the_package():
    with pytest.raises(ImportError, match="check_heads"):
        from mil.heads import check_heads  # noqa: F401


def test_every_law_has_a_head_it_catches():
    assert {law for law, _ in BROKEN} == set(LAWS)


def test_every_law_is_in_the_suite():
    assert {each for name, each in vars(laws).items() if name.startswith("law_")} == set(LAWS)


def test_positional_head_may_depend_on_order():
    class Positional(OrderSensitive):
        positional = True

    laws.law_order_changes_nothing(partial(Positional, HeadSettings(dim=7, n_outputs=3)))


def test_a_head_names_what_it_is_given_as_it_likes():
    class OfOtherNames(AttentionPooling):
        def pool(self, f, m, c):
            return super().pool(f, m, c)

    check_head(OfOtherNames)


def test_heads_of_the_registry_are_heads():
    assert all(issubclass(head, Head) for head in map(head_class, MODELS))


@pytest.mark.parametrize("thing", [None, "mean", int, torch.nn.Linear])
def test_what_is_no_head_is_named(thing):
    with pytest.raises(TypeError, match="check_head takes a subclass of Head"):
        laws.check_head(thing)
