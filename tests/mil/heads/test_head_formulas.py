"""Each head against its paper's formula, written in numpy for one bag."""

import numpy as np
import pytest
import torch

from mil.errors import FitError
from mil.heads.head import HeadSettings
from mil.heads.registry import build_head, check_names

SETTINGS = HeadSettings(dim=6, n_outputs=3, width=8, dropout=0.5)
OF_TILES = ["tile-vote", "tile-vote-votes", "tile-vote-logits", "linear-probe"]
LEARNING = ["abmil", "gated-abmil", "mean", "max", *OF_TILES]


def fitted(name, settings=SETTINGS):
    """A head that has seen a scale which is not 0 and 1."""
    torch.manual_seed(3)
    head = build_head(name, settings)
    tiles = torch.randn(50, settings.dim) * torch.arange(1.0, settings.dim + 1) - 2
    head.prepare(tiles, torch.tensor([1.0, 2.0, 5.0]))
    return head.eval()


def a_bag(n_tiles=9, seed=0):
    return np.random.default_rng(seed).normal(size=(n_tiles, SETTINGS.dim)) * 3


def output_of(head, bag):
    features = torch.tensor(bag, dtype=torch.float32).unsqueeze(0)
    with torch.inference_mode():
        return head(features, torch.ones(1, len(bag), dtype=torch.bool))


def softmax(x, axis=-1):
    shares = np.exp(x - x.max(axis=axis, keepdims=True))
    return shares / shares.sum(axis=axis, keepdims=True)


class Formulas:
    """The heads' definitions on the weights of a head, in double precision."""

    def __init__(self, head):
        self.w = {name: value.double().numpy() for name, value in head.state_dict().items()}

    def layer(self, name, x):
        return x @ self.w[f"{name}.weight"].T + self.w.get(f"{name}.bias", 0)

    def tiles(self, bag):
        if "embed.0.weight" not in self.w:
            return (bag - self.w["shift"]) / self.w["scale"]
        return np.maximum(self.layer("embed.0", (bag - self.w["shift"]) / self.w["scale"]), 0)

    def weighed(self, bag, attention):
        return self.layer("classify", attention @ self.tiles(bag)), attention

    def abmil(self, bag):
        h = self.tiles(bag)
        a = softmax(self.layer("weigh", np.tanh(self.layer("project", h)))[:, 0])  # equation 8
        return self.weighed(bag, a)  # equation 7

    def gated_abmil(self, bag):
        h = self.tiles(bag)
        gate = 1 / (1 + np.exp(-self.layer("gate", h)))
        a = softmax(self.layer("weigh", np.tanh(self.layer("project", h)) * gate)[:, 0])
        return self.weighed(bag, a)  # equation 9

    def mean(self, bag):
        return self.weighed(bag, np.full(len(bag), 1 / len(bag)))

    def max(self, bag):
        h = self.tiles(bag)
        attention = np.zeros(len(bag))
        for dimension in h.T:
            winners = dimension == dimension.max()
            attention += winners / winners.sum() / h.shape[1]
        return self.layer("classify", h.max(axis=0)), attention

    def tile_vote(self, bag):
        p = softmax(self.layer("classify", self.tiles(bag))).mean(axis=0)
        return np.log(p), np.full(len(bag), 1 / len(bag))

    linear_probe = tile_vote

    def tile_vote_votes(self, bag):
        votes = self.layer("classify", self.tiles(bag)).argmax(axis=1)
        counts = np.array([(votes == label).sum() for label in range(3)])
        return np.log((counts + 1 / 3) / (len(bag) + 1)), np.full(len(bag), 1 / len(bag))

    def tile_vote_logits(self, bag):
        logits = self.layer("classify", self.tiles(bag)).mean(axis=0)
        return logits, np.full(len(bag), 1 / len(bag))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", LEARNING)
def test_logits_are_those_of_the_formula(name, seed):
    head, bag = fitted(name), a_bag(seed=seed)
    logits, _ = getattr(Formulas(head), name.replace("-", "_"))(bag)
    np.testing.assert_allclose(output_of(head, bag).logits[0], logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", LEARNING)
def test_attention_is_that_of_the_formula(name, seed):
    head, bag = fitted(name), a_bag(seed=seed)
    _, attention = getattr(Formulas(head), name.replace("-", "_"))(bag)
    np.testing.assert_allclose(output_of(head, bag).attention[0, 0], attention, atol=1e-6)


@pytest.mark.parametrize("name", LEARNING)
def test_tile_logits_are_the_classifier_on_each_tile(name):
    head, bag = fitted(name), a_bag()
    formulas = Formulas(head)
    expected = formulas.layer("classify", formulas.tiles(bag))
    np.testing.assert_allclose(output_of(head, bag).tile_logits[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["abmil", "gated-abmil", "mean"])
def test_attention_times_tile_logits_sums_to_the_logits(name):
    head = fitted(name)
    features = torch.randn(4, 30, SETTINGS.dim) * 5
    mask = torch.arange(30) < torch.tensor([30, 1, 12, 7]).unsqueeze(1)
    output = head(features, mask)
    summed = (output.attention @ output.tile_logits).squeeze(1)
    torch.testing.assert_close(summed, output.logits, rtol=0, atol=1e-5)


def test_tile_vote_is_the_mean_of_tile_probabilities():
    output = output_of(fitted("tile-vote"), a_bag())
    mean = torch.softmax(output.tile_logits[0], dim=-1).mean(dim=0)
    torch.testing.assert_close(torch.softmax(output.logits[0], dim=-1), mean)


def test_tile_vote_stays_in_log_space_where_probabilities_underflow():
    head = fitted("tile-vote")
    with torch.no_grad():
        head.classify.bias.copy_(torch.tensor([0.0, -400.0, -400.0]))
    logits = output_of(head, a_bag()).logits[0]
    assert logits[1] < -300
    assert torch.isfinite(logits).all()


def test_three_votes_have_one_classifier_and_three_opinions():
    heads = [fitted(name) for name in ("tile-vote", "tile-vote-votes", "tile-vote-logits")]
    outputs = [output_of(head, a_bag()) for head in heads]
    assert all(torch.equal(each.tile_logits, outputs[0].tile_logits) for each in outputs)
    p = [torch.softmax(each.logits[0], dim=-1) for each in outputs]
    assert not any(torch.allclose(p[i], p[j], atol=1e-3) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_votes_are_learnt_from_by_the_probabilities_of_tiles():
    features = torch.randn(8, 1, SETTINGS.dim, generator=torch.Generator().manual_seed(0)) * 5
    gradients = []
    for name in ("tile-vote-votes", "tile-vote"):
        head = fitted(name).train()
        torch.manual_seed(0)  # of dropout
        output = head(features, torch.ones(8, 1, dtype=torch.bool))
        output.logits[:, 1].sum().backward()
        gradients.append(head.classify.weight.grad)
    assert torch.equal(*gradients)
    assert (gradients[0] != 0).any()


@pytest.mark.parametrize("seed", range(3))
def test_majority_says_the_training_shares_of_every_bag(seed):
    p = torch.softmax(output_of(fitted("majority"), a_bag(seed=seed)).logits[0], dim=-1)
    torch.testing.assert_close(p, torch.tensor([1 / 8, 2 / 8, 5 / 8]))


def test_tiles_that_tie_share_a_dimension_of_max_pooling():
    head = fitted("max")
    with torch.no_grad():
        head.embed[0].bias.fill_(-1e4)  # every tile is cut off at zero in every dimension
    np.testing.assert_allclose(output_of(head, a_bag(4)).attention[0, 0], 0.25)


def test_gate_is_what_tells_gated_attention_apart():
    gated, plain = fitted("gated-abmil"), fitted("abmil")
    plain.load_state_dict({k: v for k, v in gated.state_dict().items() if "gate" not in k})
    assert not torch.allclose(
        output_of(gated, a_bag()).attention, output_of(plain, a_bag()).attention
    )


@pytest.mark.parametrize("name", LEARNING)
def test_features_are_centred_and_scaled_alike_by_the_training_tiles(name):
    head = fitted(name)
    tiles = torch.randn(200, SETTINGS.dim) * 7 + 100
    head.prepare(tiles, torch.ones(3))
    torch.testing.assert_close(head.shift, tiles.mean(dim=0))
    spread = (tiles - tiles.mean(dim=0)).square().mean().sqrt()
    torch.testing.assert_close(head.scale, spread.expand(SETTINGS.dim))


def test_shifting_and_stretching_all_features_changes_no_logit():
    tiles, bag = torch.randn(60, SETTINGS.dim), torch.randn(5, SETTINGS.dim)
    head = fitted("abmil")
    head.prepare(tiles, torch.ones(3))
    before = output_of(head, bag.numpy()).logits
    head.prepare(tiles * 8 + 3, torch.ones(3))
    after = output_of(head, (bag * 8 + 3).numpy()).logits
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def test_feature_that_never_varied_is_not_blown_up():
    tiles = torch.randn(60, SETTINGS.dim)
    tiles[:, 0] = 4.0
    head = fitted("mean")
    head.prepare(tiles, torch.ones(3))
    assert head.shift[0] == 4
    assert head.scale[0] == head.scale[1] > 0.5


def test_constant_features_leave_a_scale_above_zero():
    head = fitted("mean")
    head.prepare(torch.full((9, SETTINGS.dim), 2.0), torch.ones(3))
    assert (head.scale > 0).all()


def test_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(
        FitError, match=r"No model 'abmill'\. Did you mean 'abmil'\? Known: .*tile-vote"
    ):
        build_head("abmill", SETTINGS)


def test_unknown_name_without_a_near_one_lists_the_known():
    with pytest.raises(FitError, match=r"No model 'zzz'\. Known: "):
        check_names(["mean", "zzz"])


def test_name_given_twice_is_refused():
    with pytest.raises(FitError, match="named twice"):
        check_names(["mean", "abmil", "mean"])
