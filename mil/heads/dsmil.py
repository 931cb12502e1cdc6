"""Dual-stream MIL: B. Li, Y. Li, K. Eliceiri, Dual-stream Multiple Instance Learning Network, CVPR 2021."""

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mil.heads.head import Head, HeadOutput, HeadSettings
from mil.heads.layers import classify_maps, mask_scores, masked_softmax, tile_embedding


class DualStream(Head):
    """The highest tile of each class, and all tiles weighed by how like it they are (equations 3 to 7).

    One stream classifies tiles and keeps the maximum per class, whose tile is the critical one; the other
    attends to all tiles by their likeness to it. The bag is the mean of both. Likeness is
    divided by the root of its length, as in dot-product attention, so that width does not sharpen it. Each
    class reads its own embedding, as equation 6 is written; in the authors' code each reads those of all.
    """

    learns_attention = True

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__(settings)
        hidden = max(1, settings.width // 2)
        self.embed = tile_embedding(settings.dim, settings.width, settings.dropout)
        self.instance = nn.Linear(settings.width, settings.n_outputs)  # W_0
        self.query = nn.Linear(settings.width, hidden)  # W_q
        self.value = nn.Linear(settings.width, settings.width)  # W_v
        self.classify = nn.Linear(settings.width, settings.n_outputs)  # W_b

    def pool(self, features: Tensor, mask: Tensor, coords: Tensor | None) -> HeadOutput:
        """Average the two streams."""
        del coords
        tiles = self.embed(features)  # (B, N, E)
        padding = ~mask.unsqueeze(-1)
        tile_logits = self.instance(tiles)  # (B, N, C)
        highest = tile_logits.masked_fill(padding, -float("inf")).max(dim=1)
        queries = self.query(tiles)  # (B, N, H), equation 4
        at = highest.indices.unsqueeze(-1).expand(-1, -1, queries.shape[-1])  # (B, C, H)
        critical = queries.gather(1, at)  # (B, C, H)
        scores = critical @ queries.transpose(1, 2) / queries.shape[-1] ** 0.5  # (B, C, N)
        attention = masked_softmax(scores, mask)  # (B, C, N), equation 5
        bags = self.value(attention @ tiles)  # (B, C, E): W_v is linear, so it may follow the sum
        of_bag = classify_maps(bags, self.classify)  # (B, C), equation 6
        return HeadOutput(
            logits=(highest.values + of_bag) / 2,  # equation 7
            attention=attention,
            scores=mask_scores(scores, mask),
            embedding=bags.flatten(1),
            tile_logits=tile_logits.masked_fill(padding, 0.0),
            aux={"highest": highest.values},  # (B, C), equation 3
        )

    def auxiliary_loss(self, output: HeadOutput, labels: Tensor, mask: Tensor) -> Tensor:
        """Cross-entropy of the first stream alone, so that the critical tile is chosen by what it says."""
        del mask
        return cross_entropy(output.aux["highest"].float(), labels, reduction="none")
