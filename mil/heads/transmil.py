"""TransMIL: Z. Shao et al., Transformer based Correlated MIL, NeurIPS 2021.

Its attention is that of Y. Xiong et al., Nyströmformer, AAAI 2021: softmax(Q K^T) V as the product of three
small factors over landmarks, which are means of consecutive tokens.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from mil.heads.head import Head, HeadOutput, HeadSettings
from mil.heads.layers import mask_scores, tile_embedding

HEADS = 8
RESIDUAL = 33  # tokens that the convolution beside the attention sees
INVERSE_STEPS = 6
RECOMPUTE = 20_000  # tokens from which the first layer is computed again for its gradient, not kept
PRODUCTS = 20_000  # tokens up to which their products with the landmarks are kept for the gradient


class TransMIL(Head):
    """Two layers of attention between all tiles, a convolution over their square between them.

    Every bag runs alone on its own tiles, so padding enters nowhere. The tiles, in their order, fill a
    square, the first of them repeated until it is full, behind a class token from which the bag is read
    (algorithms 1 and 2). Attention is the class token's in the last layer, averaged over the heads; the
    approximation may be negative, which counts as none, and a repeated tile has that of both.
    """

    positional = True
    learns_attention = True

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__(settings)
        width = settings.width
        self.embed = tile_embedding(settings.dim, width, settings.dropout)
        self.class_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.first = NystromAttention(width, of_tiles=True)
        self.position = PyramidEncoding(width)
        self.last = NystromAttention(width, of_tiles=False)
        self.norm = nn.LayerNorm(width)
        self.classify = nn.Linear(width, settings.n_outputs)

    def pool(self, features: Tensor, mask: Tensor, coords: Tensor | None) -> HeadOutput:
        """Read each bag by itself."""
        del coords
        tiles = self.embed(features)  # (B, N, E)
        read = [self.read(tiles[row, real].unsqueeze(0)) for row, real in enumerate(mask)]
        embedding = torch.cat([token for token, _ in read])  # (B, E)
        attention = torch.zeros(mask.shape, device=mask.device)  # (B, N)
        attention[mask] = torch.cat([shares for _, shares in read])
        return HeadOutput(
            logits=self.classify(embedding),
            attention=attention.unsqueeze(1),
            scores=mask_scores(attention.log().unsqueeze(1), mask),
            embedding=embedding,
        )

    def read(self, tiles: Tensor) -> tuple[Tensor, Tensor]:
        """One bag (1, n, E) as its class token (1, E), and that token's attention (n,) to the tiles."""
        n_tiles = tiles.shape[1]
        side = math.isqrt(n_tiles - 1) + 1
        repeated = side**2 - n_tiles
        tokens = torch.cat([self.class_token.to(tiles.dtype), tiles, tiles[:, :repeated]], dim=1)
        if torch.is_grad_enabled() and n_tiles > RECOMPUTE:
            tokens = checkpoint(self.mix, tokens, side, use_reentrant=False)
        else:
            tokens = self.mix(tokens, side)
        answer, row = self.last.first_answer(tokens)
        token = self.norm(tokens[:, :1] + answer).squeeze(1)  # (1, E)
        weights = row[1 : 1 + n_tiles].clone()
        weights[:repeated] += row[1 + n_tiles :]
        weights = weights.clamp_min(torch.finfo(weights.dtype).tiny)
        return token, weights / weights.sum()

    def mix(self, tokens: Tensor, side: int) -> Tensor:
        """The first layer and the encoding of position, (1, L, E) -> (1, L, E)."""
        mixed: Tensor = self.position(tokens + self.first(tokens), side)
        return mixed


class Factors(NamedTuple):
    """What attention is made of: (1, H, L, d) of all tokens, (1, H, M, d) of landmarks, (1, H, M, M)."""

    keys: Tensor
    values: Tensor
    key_marks: Tensor
    query_marks: Tensor
    inverse: Tensor


class NystromAttention(nn.Module):
    """Attention through landmarks, linear in the number of tokens and exact where each is a landmark.

    softmax(Q k^T) pinv(softmax(q k^T)) softmax(q K^T) V, with q and k the means of Q and K over segments;
    beside it a convolution of V along the tiles. The class token takes no part in that: it stands beside no
    tile, and given a way to the first sixteen it learns small cohorts by heart.
    """

    def __init__(self, width: int, *, of_tiles: bool) -> None:
        super().__init__()
        self.n_heads = math.gcd(width, HEADS)
        self.n_landmarks = max(1, width // 2)
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width)
        self.residual = None
        if of_tiles:
            self.residual = nn.Conv2d(
                self.n_heads,
                self.n_heads,
                (RESIDUAL, 1),
                padding=(RESIDUAL // 2, 0),
                groups=self.n_heads,
                bias=False,
            )

    def forward(self, tokens: Tensor) -> Tensor:
        """The answer to every token, (1, L, E) -> (1, L, E)."""
        normed = self.norm(tokens)
        return self.answer(self.split(self.query(normed)), self.factors(normed))

    def first_answer(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The answer to the first token (1, 1, E), which costs less than all, and its attention (L,)."""
        normed = self.norm(tokens)
        factors = self.factors(normed)
        queries = self.split(self.query(normed[:, :1]))
        return self.answer(queries, factors), self.row(queries, factors)

    def split(self, tokens: Tensor) -> Tensor:
        """(1, L, E) -> (1, H, L, d)."""
        return tokens.reshape(*tokens.shape[:2], self.n_heads, -1).transpose(1, 2)

    def factors(self, normed: Tensor) -> Factors:
        """Project tokens and landmarks; the mean of projections is the projection of the mean."""
        marks = segment_means(normed, self.n_landmarks)  # (1, M, E)
        query_marks, key_marks = self.split(self.query(marks)), self.split(self.key(marks))
        with torch.autocast(normed.device.type, enabled=False):
            inverse = pseudo_inverse(likeness(query_marks.float(), key_marks.float()))
        keys, values = self.split(self.key(normed)), self.split(self.value(normed))
        return Factors(keys, values, key_marks, query_marks, inverse)

    def answer(self, queries: Tensor, factors: Factors) -> Tensor:
        """The answers to these queries of the first tokens: (1, H, l, d) -> (1, l, E)."""
        keys, values, key_marks, query_marks, inverse = factors
        gathered = attend(query_marks, keys, values)  # (1, H, M, d)
        with torch.autocast(queries.device.type, enabled=False):
            summary = (inverse @ gathered.float()).to(queries.dtype)  # (1, H, M, d)
        answers = attend(queries, key_marks, summary)  # (1, H, l, d)
        if self.residual is not None:
            answers = answers + pad(self.residual(values[:, :, 1:]), (0, 0, 1, 0))
        answer: Tensor = self.out(answers.transpose(1, 2).flatten(2))
        return answer

    @torch.no_grad()
    def row(self, queries: Tensor, factors: Factors) -> Tensor:
        """Attention of the first query to all tokens, averaged over the heads: (L,), of sum 1."""
        with torch.autocast(queries.device.type, enabled=False):
            weights = (
                likeness(queries[:, :, :1].float(), factors.key_marks.float()) @ factors.inverse
            )
            heads = zip(weights[0], factors.query_marks[0], factors.keys[0], strict=True)
            # Head by head: landmarks times tokens of all would be the largest tensor there is.
            rows = [weight @ likeness(marks.float(), keys.float()) for weight, marks, keys in heads]
        return torch.cat(rows).mean(dim=0)


class PyramidEncoding(nn.Module):
    """Convolutions of 7, 5 and 3 tiles over the square, added to it; the class token passes (algorithm 2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.seven = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.five = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.three = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, tokens: Tensor, side: int) -> Tensor:
        """(1, 1 + side * side, E) -> the same."""
        # The sum of convolutions is the convolution by the sum of kernels; the tile itself is one of them.
        kernel = (
            self.seven.weight + pad(self.five.weight, [1] * 4) + pad(self.three.weight, [2] * 4)
        )
        kernel = kernel + pad(torch.ones_like(kernel[..., :1, :1]), [3] * 4)
        bias = self.seven.bias + self.five.bias + self.three.bias  # type: ignore[operator]
        width = tokens.shape[-1]
        square = tokens[:, 1:].transpose(1, 2).reshape(1, width, side, side)
        encoded = conv2d(square, kernel, bias, padding=3, groups=width)
        return torch.cat([tokens[:, :1], encoded.flatten(2).transpose(1, 2)], dim=1)


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """softmax(Q K^T) V: (1, H, l, d), (1, H, L, d), (1, H, L, d) -> (1, H, l, d).

    A head's products fit a processor's cache, and kept for the gradient they take half the time of PyTorch's
    own attention, which computes them again; of very many tokens they would fill the memory.
    """
    if queries.is_cuda or max(queries.shape[2], keys.shape[2]) > PRODUCTS:
        return scaled_dot_product_attention(queries, keys, values)
    heads = zip(queries[0], keys[0], values[0], strict=True)
    with torch.autocast("cpu", enabled=False):  # all are in its format, and so stays the softmax
        return torch.stack([likeness(q, k) @ v for q, k, v in heads]).unsqueeze(0)


def segment_means(tokens: Tensor, n_segments: int) -> Tensor:
    """(1, L, E) -> (1, M, E): means of consecutive tokens, in at most so many segments of equal length.

    The last segment may be shorter; it is the mean of its own tokens.
    """
    length = -(-tokens.shape[1] // n_segments)
    whole = tokens.shape[1] // length * length
    means = tokens[:, :whole].reshape(1, -1, length, tokens.shape[-1]).mean(dim=2)
    if whole == tokens.shape[1]:
        return means
    return torch.cat([means, tokens[:, whole:].mean(dim=1, keepdim=True)], dim=1)


def likeness(queries: Tensor, keys: Tensor) -> Tensor:
    """Softmax over keys of scaled products: (..., l, d), (..., L, d) -> (..., l, L)."""
    near = (queries / queries.shape[-1] ** 0.5) @ keys.transpose(-1, -2)
    return torch.softmax(near, dim=-1)


def pseudo_inverse(matrix: Tensor) -> Tensor:
    """The Moore-Penrose inverse of (..., M, M) by the iteration of Nyströmformer."""
    identity = torch.eye(matrix.shape[-1], device=matrix.device)
    columns = matrix.abs().sum(dim=-2, keepdim=True).amax(dim=-1, keepdim=True)
    rows = matrix.abs().sum(dim=-1, keepdim=True).amax(dim=-2, keepdim=True)
    inverse = matrix.transpose(-1, -2) / (columns * rows)
    for _ in range(INVERSE_STEPS):
        product = matrix @ inverse
        inner = 7 * identity - product
        inner = 15 * identity - product @ inner
        inverse = inverse @ (13 * identity - product @ inner) / 4
    return inverse
