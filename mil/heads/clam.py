"""CLAM: M. Lu et al., Data-efficient and weakly supervised computational pathology on whole-slide images,
Nature Biomedical Engineering 2021 (Methods).
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, softplus

from mil.heads.head import Head, HeadOutput, HeadSettings
from mil.heads.layers import (
    GatedAttention,
    classify_maps,
    mask_scores,
    masked_softmax,
    tile_embedding,
)

N_EVIDENCE = 8  # B: tiles at each end of the attention that get a label of their own
INSTANCE_WEIGHT = 0.3 / 0.7  # c2 / c1, the tiles' loss beside the slide's


class SingleBranchClam(Head):
    """Gated attention with one map, and clustering of the tiles at its ends (equations 1 to 3).

    In training the most attended tiles are evidence for the slide's class and the least attended are not; of
    any other class the most attended are not either, since subtypes exclude each other.
    """

    learns_attention = True
    adds_up = True

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__(settings)
        self.embed = tile_embedding(settings.dim, settings.width, settings.dropout)
        self.attend = GatedAttention(settings.width, self.n_maps(settings))
        self.classify = nn.Linear(settings.width, settings.n_outputs)
        # Only the difference of the paper's two scores per class enters its loss; this is the difference.
        self.evidence = nn.Linear(settings.width, settings.n_outputs)

    def n_maps(self, settings: HeadSettings) -> int:
        """One map for all classes."""
        del settings
        return 1

    def pool(self, features: Tensor, mask: Tensor, coords: Tensor | None) -> HeadOutput:
        """Weigh, sum and classify, by class where there is a map for each."""
        del coords
        tiles = self.embed(features)  # (B, N, E)
        scores = self.attend(tiles)  # (B, A, N), equation 1
        attention = masked_softmax(scores, mask)  # (B, A, N)
        slides = attention @ tiles  # (B, A, E), equation 2
        padding = ~mask.unsqueeze(-1)
        return HeadOutput(
            logits=classify_maps(slides, self.classify),
            attention=attention,
            scores=mask_scores(scores, mask),
            embedding=slides.flatten(1),
            tile_logits=self.classify(tiles).masked_fill(padding, 0.0),
            aux={
                "evidence": self.evidence(tiles).masked_fill(padding, 0.0)
            },  # (B, N, C), equation 3
        )

    def auxiliary_loss(self, output: HeadOutput, labels: Tensor, mask: Tensor) -> Tensor:
        """The smooth top-1 SVM loss of the tiles at the ends of the attention.

        With two outcomes, margin 1 and temperature 1 that loss is softplus(1 - difference of scores): L.
        Berrada, A. Zisserman, M. Kumar, Smooth Loss Functions for Deep Top-k Classification, ICLR 2018.
        Bags too small for two ends of B tiles are halved, so no tile is evidence for and against.
        """
        n_classes = self.settings.n_outputs
        losses = []
        for row, real in enumerate(mask):
            evidence = output.aux["evidence"][row, real].T.float()  # (C, n)
            scores = output.scores[row][:, real].expand(n_classes, -1)  # (C, n)
            n_tiles = scores.shape[1]
            top = scores.topk(min(N_EVIDENCE, (n_tiles + 1) // 2)).indices
            sign = 2 * one_hot(labels[row], n_classes).unsqueeze(1) - 1  # (C, 1)
            high = softplus(1 - sign * evidence.gather(1, top))  # (C, top)
            own = int(labels[row])
            bottom = scores[own].topk(min(N_EVIDENCE, n_tiles // 2), largest=False).indices
            low = softplus(1 + evidence[own, bottom])  # (bottom,)
            of_class = high.mean(dim=1)  # (C,)
            of_own = torch.cat([high[own], low]).mean()
            losses.append((of_class.sum() - of_class[own] + of_own) / n_classes)
        return INSTANCE_WEIGHT * torch.stack(losses)


class MultiBranchClam(SingleBranchClam):
    """The same with an attention map and a slide embedding for each class."""

    def n_maps(self, settings: HeadSettings) -> int:
        """A map for each class."""
        return settings.n_outputs
