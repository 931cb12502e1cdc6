"""Heads with parts of their own against their papers, written in numpy for one bag without padding."""

import numpy as np
import pytest
import torch

from mil.heads import clam, dtfd, transmil
from mil.heads.head import HeadSettings
from mil.heads.registry import build_head

SETTINGS = HeadSettings(dim=6, n_outputs=3, width=8, dropout=0.5)


def fitted(name, settings=SETTINGS, seed=3):
    """A head that has seen a scale which is not 0 and 1, and whose attention is not nearly even."""
    torch.manual_seed(seed)
    head = build_head(name, settings)
    head.prepare(torch.randn(50, settings.dim) * 3 - 2, torch.ones(settings.n_outputs))
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.mul_(2)
    return head.eval()


def a_bag(n_tiles=11, seed=0):
    return np.random.default_rng(seed).normal(size=(n_tiles, SETTINGS.dim)) * 3


def output_of(head, bag):
    features = torch.tensor(bag, dtype=torch.float32).unsqueeze(0)
    with torch.inference_mode():
        return head(features, torch.ones(1, len(bag), dtype=torch.bool))


def softmax(x, axis=-1):
    shares = np.exp(x - x.max(axis=axis, keepdims=True))
    return shares / shares.sum(axis=axis, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


class Formulas:
    """The papers' definitions on the weights of a head, in double precision."""

    def __init__(self, head):
        self.w = {name: value.double().numpy() for name, value in head.state_dict().items()}

    def layer(self, name, x):
        return x @ self.w[f"{name}.weight"].T + self.w.get(f"{name}.bias", 0)

    def tiles(self, bag):
        return np.maximum(self.layer("embed.0", (bag - self.w["shift"]) / self.w["scale"]), 0)

    def gated(self, name, h):  # Ilse 2018, equation 9: (A, N)
        hidden = np.tanh(self.layer(f"{name}.project", h)) * sigmoid(self.layer(f"{name}.gate", h))
        return self.layer(f"{name}.weigh", hidden).T

    def norm(self, name, x):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def lse(self, bag):
        h, r = self.tiles(bag), 1.0
        pooled = np.log(np.mean(np.exp(r * h), axis=0)) / r
        return self.layer("classify", pooled), softmax(r * h, axis=0).mean(axis=1)[None]

    def additive_abmil(self, bag):
        h = self.tiles(bag)
        a = softmax(self.gated("attend", h))
        m = a.T * h  # what the patch classifier reads: attention times tile
        each = np.maximum(self.layer("hide", m), 0) @ self.w["classify.weight"].T
        return each.sum(axis=0) + self.w["classify.bias"], a

    def clam_sb(self, bag):
        h = self.tiles(bag)
        a = softmax(self.gated("attend", h))
        return self.layer("classify", a[0] @ h), a

    def clam_mb(self, bag):
        h = self.tiles(bag)
        a = softmax(self.gated("attend", h))  # (C, N)
        w, b = self.w["classify.weight"], self.w["classify.bias"]
        return np.array(
            [w[c] @ sum(a[c, k] * h[k] for k in range(len(h))) + b[c] for c in range(3)]
        ), a

    def dsmil(self, bag):
        h = self.tiles(bag)
        first, q, v = self.layer("instance", h), self.layer("query", h), self.layer("value", h)
        logits, attention = [], []
        for c in range(3):
            m = first[:, c].argmax()  # the critical tile
            u = softmax(q @ q[m] / np.sqrt(q.shape[1]))
            second = self.w["classify.weight"][c] @ (u @ v) + self.w["classify.bias"][c]
            logits.append((first[m, c] + second) / 2)
            attention.append(u)
        return np.array(logits), np.array(attention)

    def dtfd(self, bag):
        h = self.tiles(bag)
        s = self.gated("attend_tiles", h)[0]
        order = np.argsort(-s)
        dealt = [order[m :: dtfd.N_PSEUDO] for m in range(min(dtfd.N_PSEUDO, len(h)))]
        distilled = np.array([softmax(s[tiles]) @ h[tiles] for tiles in dealt])  # AFS
        between = softmax(self.gated("attend_pseudo", distilled))[0]
        attention = np.zeros(len(h))
        for weight, tiles in zip(between, dealt, strict=True):
            attention[tiles] = weight * softmax(s[tiles])
        return self.layer("classify", between @ distilled), attention[None]

    def nystrom(self, name, x):
        """(L, E) -> answers (L, E), and the whole matrix of attention (H, L, L)."""
        n_heads, m = 8, max(1, x.shape[1] // 2)
        x = self.norm(f"{name}.norm", x)
        length = -(-len(x) // m)
        means = np.array([x[i : i + length].mean(axis=0) for i in range(0, len(x), length)])
        answers, matrices = [], []
        for head in np.split(np.arange(x.shape[1]), n_heads):
            w = {
                part: self.w[f"{name}.{part}.weight"][head].T for part in ("query", "key", "value")
            }
            scale = np.sqrt(len(head))
            f = softmax(x @ w["query"] @ (means @ w["key"]).T / scale)
            a = softmax(means @ w["query"] @ (means @ w["key"]).T / scale)
            b = softmax(means @ w["query"] @ (x @ w["key"]).T / scale)
            z = a.T / (np.abs(a).sum(0).max() * np.abs(a).sum(1).max())
            for _ in range(6):
                i = np.eye(len(a))
                z = z @ (13 * i - a @ z @ (15 * i - a @ z @ (7 * i - a @ z))) / 4
            v = x @ w["value"]
            nearby = np.zeros_like(v)
            if name == "first":  # among tiles; the class token, which comes first, is none
                kernel = self.w["first.residual.weight"][len(matrices), 0, :, 0]
                padded = np.pad(v[1:], ((16, 16), (0, 0)))
                nearby[1:] = [kernel @ padded[t : t + 33] for t in range(len(x) - 1)]
            answers.append(f @ z @ b @ v + nearby)
            matrices.append(f @ z @ b)
        return self.layer(f"{name}.out", np.concatenate(answers, axis=1)), np.array(matrices)

    def transmil(self, bag):
        h = self.tiles(bag)
        side = int(np.ceil(np.sqrt(len(h))))
        h = np.concatenate([h, h[: side * side - len(h)]])  # a square
        x = np.concatenate([self.w["class_token"][0], h])
        x = x + self.nystrom("first", x)[0]
        square = x[1:].reshape(side, side, -1)
        encoded = square.copy()
        for name, k in (("seven", 7), ("five", 5), ("three", 3)):
            kernel, bias = self.w[f"position.{name}.weight"][:, 0], self.w[f"position.{name}.bias"]
            padded = np.pad(square, ((k // 2, k // 2), (k // 2, k // 2), (0, 0)))
            for i, j in np.ndindex(side, side):
                encoded[i, j] += (
                    np.einsum("ijc,cij->c", padded[i : i + k, j : j + k], kernel) + bias
                )
        x = np.concatenate([x[:1], encoded.reshape(side * side, -1)])
        answer, matrix = self.nystrom("last", x)
        row = matrix.mean(axis=0)[0, 1:]  # the class token's
        shares = row[: len(bag)].copy()
        shares[: len(row) - len(bag)] += row[len(bag) :]
        shares = np.maximum(shares, 0)
        token = self.norm("norm", x[0] + answer[0])
        return self.layer("classify", token), (shares / shares.sum())[None]


NAMES = ["lse", "additive-abmil", "clam-sb", "clam-mb", "dsmil", "dtfd", "transmil"]


@pytest.mark.parametrize("n_tiles", [1, 2, 4, 11, 40])
@pytest.mark.parametrize("name", NAMES)
def test_logits_and_attention_are_those_of_the_paper(name, n_tiles):
    head, bag = fitted(name), a_bag(n_tiles, seed=n_tiles)
    logits, attention = getattr(Formulas(head), name.replace("-", "_"))(bag)
    output = output_of(head, bag)
    np.testing.assert_allclose(output.logits[0], logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(output.attention[0], attention, atol=1e-5)


@pytest.mark.parametrize("name", ["additive-abmil", "clam-sb", "clam-mb", "dtfd"])
def test_attention_times_tile_logits_sums_to_the_logits(name):
    output = output_of(fitted(name), a_bag())
    tile_logits = output.tile_logits[0].T  # (C, N)
    summed = (output.attention[0] * tile_logits).sum(dim=1)
    torch.testing.assert_close(summed, output.logits[0], rtol=1e-5, atol=1e-5)


def loss_of(head, bag, label):
    output = output_of(head, bag)
    mask = torch.ones(1, len(bag), dtype=torch.bool)
    return float(head.auxiliary_loss(output, torch.tensor([label]), mask))


@pytest.mark.parametrize("n_tiles", [1, 2, 3, 15, 16, 17, 40])
@pytest.mark.parametrize("name", ["clam-sb", "clam-mb"])
def test_clustering_loss_labels_the_ends_of_the_attention(name, n_tiles):
    head, bag = fitted(name), a_bag(n_tiles)
    formulas = Formulas(head)
    h = formulas.tiles(bag)
    evidence, a = formulas.layer("evidence", h), formulas.clam_sb(bag)[1]
    of_class = []
    for c in range(3):
        order = np.argsort(-(a[c] if len(a) == 3 else a[0]))
        high = order[: min(clam.N_EVIDENCE, -(-n_tiles // 2))]
        low = order[len(order) - min(clam.N_EVIDENCE, n_tiles // 2) :] if c == 1 else order[:0]
        assert not set(high) & set(low)
        sign = 1 if c == 1 else -1
        # the smooth SVM over two outcomes: log(exp 0 + exp(1 + the wrong less the right score))
        terms = [np.log1p(np.exp(1 - sign * e)) for e in evidence[high, c]]
        terms += [np.log1p(np.exp(1 + e)) for e in evidence[low, c]]
        of_class.append(np.mean(terms))
    assert loss_of(head, bag, 1) == pytest.approx(0.3 / 0.7 * np.mean(of_class), rel=1e-5)


def test_first_stream_of_dsmil_is_judged_by_itself():
    head, bag = fitted("dsmil"), a_bag()
    formulas = Formulas(head)
    highest = formulas.layer("instance", formulas.tiles(bag)).max(axis=0)
    assert loss_of(head, bag, 2) == pytest.approx(-np.log(softmax(highest)[2]), rel=1e-5)


@pytest.mark.parametrize("n_tiles", [1, 3, 5, 23])
def test_first_tier_of_dtfd_judges_each_pseudo_bag(n_tiles):
    head, bag = fitted("dtfd"), a_bag(n_tiles)
    formulas = Formulas(head)
    h = formulas.tiles(bag)
    s = formulas.gated("attend_tiles", h)[0]
    order = np.argsort(-s)
    dealt = [order[m::5] for m in range(min(5, n_tiles))]
    logits = [formulas.layer("classify_pseudo", softmax(s[t]) @ h[t]) for t in dealt]
    expected = np.mean([-np.log(softmax(each)[1]) for each in logits])
    assert loss_of(head, bag, 1) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("lengths", [(1, 13), (4, 5), (20, 7)])
def test_deal_gives_pseudo_bags_of_nearly_the_same_size(lengths):
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    dealt = dtfd.deal(torch.rand(mask.shape), mask)
    for row, length in enumerate(lengths):
        sizes = torch.bincount(dealt[row, :length], minlength=5)
        assert sizes.max() - sizes.min() <= 1


def test_pseudo_bags_are_drawn_anew_in_training_from_the_generator():
    head = fitted("dtfd", HeadSettings(dim=6, n_outputs=3, width=8, dropout=0)).train()
    features, mask = torch.randn(1, 30, 6), torch.ones(1, 30, dtype=torch.bool)
    torch.manual_seed(1)
    first, second = (head(features, mask).logits for _ in range(2))
    torch.manual_seed(1)
    assert not torch.equal(first, second)
    assert torch.equal(first, head(features, mask).logits)


def test_landmarks_of_every_token_make_the_attention_exact(monkeypatch):
    monkeypatch.setattr(transmil, "INVERSE_STEPS", 20)
    torch.manual_seed(0)
    attention = transmil.NystromAttention(64, of_tiles=False).eval()
    tokens = torch.randn(1, 20, 64)
    with torch.no_grad():
        attention.query.weight.mul_(6)  # far from even, so that there is an inverse
        attention.key.weight.mul_(6)
        normed = attention.norm(tokens)
        parts = [
            attention.split(layer(normed))
            for layer in (attention.query, attention.key, attention.value)
        ]
        weights = transmil.likeness(parts[0], parts[1])
        exact = attention.out((weights @ parts[2]).transpose(1, 2).flatten(2))
        answer, row = attention.first_answer(tokens)
    torch.testing.assert_close(attention(tokens), exact, atol=2e-3, rtol=0)
    torch.testing.assert_close(answer, exact[:, :1], atol=2e-3, rtol=0)
    torch.testing.assert_close(row, weights[0, :, 0].mean(dim=0), atol=2e-3, rtol=0)


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 33])
def test_segment_means_are_of_the_tokens_alone(length):
    tokens = torch.randn(1, length, 3)
    means = transmil.segment_means(tokens, 4)
    step = -(-length // 4)
    expected = [tokens[0, i : i + step].mean(dim=0) for i in range(0, length, step)]
    torch.testing.assert_close(means[0], torch.stack(expected))
    assert len(means[0]) <= 4


def test_pseudo_inverse_is_that_of_numpy():
    matrix = torch.softmax(torch.randn(3, 6, 6) + 8 * torch.eye(6), dim=-1)
    torch.testing.assert_close(
        transmil.pseudo_inverse(matrix), torch.linalg.pinv(matrix), atol=1e-4, rtol=1e-4
    )


def test_tiles_have_an_order_for_transmil():
    head, bag = fitted("transmil"), a_bag(30)
    assert not torch.allclose(output_of(head, bag).logits, output_of(head, bag[::-1].copy()).logits)


def test_recomputing_the_first_layer_changes_no_gradient(monkeypatch):
    gradients = []
    for threshold in (10_000, 5):
        monkeypatch.setattr(transmil, "RECOMPUTE", threshold)
        head = fitted("transmil").train()
        torch.manual_seed(0)
        output = head(torch.ones(1, 30, 6).cumsum(1), torch.ones(1, 30, dtype=torch.bool))
        output.logits.square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in head.parameters()])
    for kept, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, kept)


def test_products_kept_or_not_are_the_same_attention(monkeypatch):
    torch.manual_seed(0)
    parts = [torch.randn(1, 4, n, 8, requires_grad=True) for n in (5, 30, 30)]
    found = []
    for most in (30, 29):
        monkeypatch.setattr(transmil, "PRODUCTS", most)
        answer = transmil.attend(*parts)
        found.append([answer, *torch.autograd.grad(answer.square().sum(), parts)])
    for kept, fused in zip(*found, strict=True):
        torch.testing.assert_close(kept, fused, atol=1e-5, rtol=1e-5)


def test_width_that_no_head_divides_works():
    for width in (1, 3, 12):
        output = output_of(
            fitted("transmil", HeadSettings(dim=6, n_outputs=2, width=width)), a_bag()
        )
        assert torch.isfinite(output.logits).all()
