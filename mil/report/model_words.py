"""What each model does, in words for a reader who has not met its name."""

MODEL_WORDS = {
    "mean": "averages all tiles of a slide; every tile counts the same",
    "max": "takes the strongest value of each feature over all tiles",
    "lse": "takes a smooth maximum of each feature over all tiles",
    "abmil": "averages the tiles of a slide with weights that it has learned (attention)",
    "gated-abmil": "as abmil, with a second network that can close the attention of a tile",
    "additive-abmil": "weighs and classifies each tile, and adds the tiles up",
    "clam-sb": "attention over tiles, and a clustering of the tiles with most and least attention",
    "clam-mb": "as clam-sb, with an attention of its own for each class",
    "dsmil": "finds the strongest tile, and weighs the others by how much they resemble it",
    "transmil": "lets all tiles of a slide attend to one another (a transformer)",
    "dtfd": "divides each slide into groups of tiles, and applies attention within and between them",
    "majority": "sees no image: it always answers with the outcomes of the training cases",
    "chance": "as majority, after the outcomes were shuffled",
    "clinical": "sees no image: a regression on clinical columns",
    "tile-vote": "classifies every tile by itself and averages their probabilities",
    "tile-vote-votes": "classifies every tile by itself; each tile has one vote",
    "tile-vote-logits": "classifies every tile by itself and averages their logits",
    "linear-probe": "a linear regression on single tiles, whose probabilities are averaged",
    "pooled-logistic": "a linear regression on the mean of the tiles; no neural network is trained",
    "pooled-svm": "a support vector machine on the mean of the tiles; no neural network is trained",
    "quantile-logistic": "a linear regression on quantiles of each feature over the tiles",
    "simpleshot": "finds the class with the nearest mean of its cases; no neural network is trained",
    "knn": "finds the training cases nearest to the mean of the tiles, and lets them vote",
}
REFERENCES = ("majority", "chance")  # what a model must beat: they learn nothing from the tiles


def explain_models(models: list[str]) -> list[tuple[str, str]]:
    """Name and words of each model that is known here."""
    return [(name, MODEL_WORDS[name]) for name in models if name in MODEL_WORDS]
