"""The heads and baselines of this package: one row each."""

from typing import NamedTuple


class BuiltIn(NamedTuple):
    """A head or baseline of this package.

    Attributes:
        reference: ``module:Class``.
        words: what it does, for a reader of a page who has not met its name.
    """

    reference: str
    words: str


MODELS = {
    "mean": BuiltIn(
        "mil.heads.pooling:MeanPooling",
        "averages all tiles of a slide; every tile counts the same",
    ),
    "max": BuiltIn(
        "mil.heads.pooling:MaxPooling",
        "takes the strongest value of each feature over all tiles",
    ),
    "lse": BuiltIn(
        "mil.heads.pooling:LogSumExpPooling",
        "takes a smooth maximum of each feature over all tiles",
    ),
    "abmil": BuiltIn(
        "mil.heads.attention:AttentionPooling",
        "averages the tiles of a slide with weights that it has learned (attention)",
    ),
    "gated-abmil": BuiltIn(
        "mil.heads.attention:GatedAttentionPooling",
        "as abmil, with a second network that can close the attention of a tile",
    ),
    "additive-abmil": BuiltIn(
        "mil.heads.additive:AdditiveAttention",
        "weighs and classifies each tile, and adds the tiles up",
    ),
    "clam-sb": BuiltIn(
        "mil.heads.clam:SingleBranchClam",
        "attention over tiles, and a clustering of the tiles with most and least attention",
    ),
    "clam-mb": BuiltIn(
        "mil.heads.clam:MultiBranchClam",
        "as clam-sb, with an attention of its own for each class",
    ),
    "dsmil": BuiltIn(
        "mil.heads.dsmil:DualStream",
        "finds the strongest tile, and weighs the others by how much they resemble it",
    ),
    "transmil": BuiltIn(
        "mil.heads.transmil:TransMIL",
        "lets all tiles of a slide attend to one another (a transformer)",
    ),
    "dtfd": BuiltIn(
        "mil.heads.dtfd:DoubleTier",
        "divides each slide into groups of tiles, and applies attention within and between them",
    ),
    "majority": BuiltIn(
        "mil.baselines.majority:Majority",
        "sees no image: it always answers with the outcomes of the training cases",
    ),
    "chance": BuiltIn(
        "mil.baselines.pooled:Chance",
        "as majority, after the outcomes were shuffled",
    ),
    "clinical": BuiltIn(
        "mil.baselines.clinical:Clinical",
        "sees no image: a regression on clinical columns",
    ),
    "tile-vote": BuiltIn(
        "mil.baselines.tile_vote:TileVote",
        "classifies every tile by itself and averages their probabilities",
    ),
    "tile-vote-votes": BuiltIn(
        "mil.baselines.tile_vote:TileVotes",
        "classifies every tile by itself; each tile has one vote",
    ),
    "tile-vote-logits": BuiltIn(
        "mil.baselines.tile_vote:TileVoteLogits",
        "classifies every tile by itself and averages their logits",
    ),
    "linear-probe": BuiltIn(
        "mil.baselines.tile_vote:LinearProbe",
        "a linear regression on single tiles, whose probabilities are averaged",
    ),
    "pooled-logistic": BuiltIn(
        "mil.baselines.pooled:PooledLogistic",
        "a linear regression on the mean of the tiles; no neural network is trained",
    ),
    "pooled-svm": BuiltIn(
        "mil.baselines.svm:PooledSvm",
        "a support vector machine on the mean of the tiles; no neural network is trained",
    ),
    "quantile-logistic": BuiltIn(
        "mil.baselines.quantiles:QuantileLogistic",
        "a linear regression on quantiles of each feature over the tiles",
    ),
    "simpleshot": BuiltIn(
        "mil.baselines.nearest:SimpleShot",
        "finds the class with the nearest mean of its cases; no neural network is trained",
    ),
    "knn": BuiltIn(
        "mil.baselines.nearest:NearestCases",
        "finds the training cases nearest to the mean of the tiles, and lets them vote",
    ),
}
