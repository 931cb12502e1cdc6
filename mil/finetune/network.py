"""A backbone with a classifier, of which chosen parts are trained, each at its own learning rate."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from features.backbones.registry import Backbone
from mil.errors import FitError
from mil.finetune.settings import FinetuneSettings

Stage = Literal["features", "map"]  # of a backbone: its feature vector; its last map or tokens


class TileClassifier(nn.Module):
    """A backbone and a fully connected head: (B, 3, H, W) normalised -> (B, C) logits of single tiles.

    What is frozen is frozen whole: its parameters, and its norm statistics and dropout too, which stay
    in evaluation mode under ``.train()``.

    Raises:
        FitError: the backbone cannot be trained as asked.
    """

    def __init__(self, backbone: Backbone, n_classes: int, settings: FinetuneSettings) -> None:
        super().__init__()
        self.backbone = backbone.module.requires_grad_()
        self.head = _fully_connected(backbone.dim, n_classes, settings)
        self.blocks = blocks_of(backbone)
        if backbone.recipe.pooling == "hidden":
            _set_dropout(self.backbone, settings.dropout)
        named = dict(self.backbone.named_parameters())
        for block in self.blocks[: _frozen_blocks(len(self.blocks), settings)]:
            for name in block:
                named[name].requires_grad = False
        if settings.grad_checkpointing and settings.train != "head":
            _checkpoint(backbone)
        self.train()

    def forward(self, images: Tensor, stage: Stage | None = None) -> Tensor:
        """(B, 3, H, W) normalised -> (B, C) logits; with a stage, from what ``until`` gives for it."""
        features = self.backbone(images) if stage is None else images
        if stage == "map":
            features = self.backbone.pool(features)  # type: ignore[operator]
        logits: Tensor = self.head(features)
        return logits

    def until(self, stage: Stage, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised -> what the network has made of them up to a stage."""
        before = self.backbone if stage == "features" else self.backbone.forward_features
        values: Tensor = before(images)  # type: ignore[operator]
        return values

    def frozen_stage(self, input_px: int) -> Stage | None:
        """The last stage before which nothing learns; None where something does before the first."""
        image = torch.zeros(1, 3, input_px, input_px, device=next(self.parameters()).device)
        stages: list[Stage] = ["features"]
        if hasattr(self.backbone, "pool"):
            stages.append("map")
        was_training = self.training
        self.eval()  # norms that learn would take their statistics from this image
        frozen = [stage for stage in stages if not self.until(stage, image).requires_grad]
        self.train(was_training)
        return frozen[0] if frozen else None

    def train(self, mode: bool = True) -> "TileClassifier":  # noqa: FBT001, FBT002 - torch calls it so
        """Switch what learns to training mode, and only that."""
        super().train(mode)
        for module in self.backbone.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()
        return self


def blocks_of(backbone: Backbone) -> list[list[str]]:
    """The names of a backbone's parameters by block, from the image to the features.

    Raises:
        FitError: timm does not say which blocks the architecture has.
    """
    from timm.models import group_parameters

    network: Any = backbone.module.network
    if not hasattr(network, "group_matcher"):
        raise FitError(
            f"timm knows no blocks of {backbone.name}, so they cannot be given rates. Use another backbone."
        )
    groups = group_parameters(network, network.group_matcher(coarse=False))
    return [[f"network.{name}" for name in groups[depth]] for depth in sorted(groups)]


def parameter_groups(
    classifier: TileClassifier, settings: FinetuneSettings
) -> list[dict[str, Any]]:
    """What learns, for the optimizer: ``scale`` is each group's fraction of the learning rate.

    The classifier's is 1, and each block's ``layer_decay`` times that of the block after it. Norms,
    biases and what timm names besides have no weight decay.
    """
    named = dict(classifier.backbone.named_parameters())
    spared: Any = getattr(classifier.backbone.network, "no_weight_decay", set)
    without = {f"network.{name}" for name in spared()}
    layers = [[(name, named[name]) for name in block] for block in classifier.blocks]
    layers.append(list(classifier.head.named_parameters()))
    groups = []
    for depth, layer in enumerate(layers):
        scale = settings.layer_decay ** (len(layers) - 1 - depth)
        for decays in (True, False):
            chosen = [
                parameter
                for name, parameter in layer
                if parameter.requires_grad
                and (parameter.ndim > 1 and name not in without) == decays
            ]
            if chosen:
                decay = settings.decay if decays else 0.0
                groups.append({"params": chosen, "weight_decay": decay, "scale": scale})
    return groups


def _fully_connected(dim: int, n_classes: int, settings: FinetuneSettings) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in settings.hidden:
        layers += [nn.Dropout(settings.dropout), nn.Linear(dim, width), nn.ReLU()]
        dim = width
    return nn.Sequential(*layers, nn.Dropout(settings.dropout), nn.Linear(dim, n_classes))


def _set_dropout(backbone: nn.Module, rate: float) -> None:
    """Dropout between pretrained hidden layers is that between layers of the classifier."""
    for module in backbone.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate


def _frozen_blocks(n_blocks: int, settings: FinetuneSettings) -> int:
    if settings.train == "last" and settings.last_blocks > n_blocks:
        raise FitError(
            f"The backbone has {n_blocks} blocks; got last_blocks {settings.last_blocks}. Set train to all."
        )
    return {"head": n_blocks, "last": n_blocks - settings.last_blocks, "all": 0}[settings.train]


def _checkpoint(backbone: Backbone) -> None:
    network: Any = backbone.module.network
    try:
        network.set_grad_checkpointing(True)
    except (AssertionError, AttributeError) as error:
        raise FitError(
            f"timm has no gradient checkpointing for {backbone.name}. Turn grad_checkpointing off, "
            "and lower batch_tiles if memory is short."
        ) from error
