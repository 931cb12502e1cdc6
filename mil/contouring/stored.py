"""The network that contours new patients, as a run keeps it: weights, settings, and whom it has seen."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from features.bags.bag import PIXELS
from features.files.atomic import write_atomic
from features.files.parse import parse_json
from features.stored import all_of_stored
from features.volumes.predicted import MaskCard
from mil.contouring.cases import ContourCase
from mil.contouring.network import SliceUNet, train_network
from mil.contouring.settings import ContourSettings
from mil.data.names import cases_among
from mil.errors import FitError

NETWORK = "network.safetensors"
FORMAT = "mil-contours"


@dataclass(frozen=True, eq=False)
class ContourNetwork:
    """A network and what is known of it.

    Attributes:
        network: trained.
        settings: of its input and its training.
        card: whom it has learnt from; it goes with every mask.
    """

    network: SliceUNet
    settings: ContourSettings
    card: MaskCard

    def has_seen(self, case: ContourCase) -> bool:
        """Whether it has learnt from a patient, by the name or by the image."""
        known = cases_among([(case.case, case.name)], self.card.trained_on)
        return bool(known) or f"{PIXELS}{case.source}" in self.card.trained_on_slides


def fit_contours(
    train: Sequence[ContourCase], settings: ContourSettings, advance: Callable[[int], None]
) -> ContourNetwork:
    """Train a network on drawn volumes.

    Args:
        train: with regions.
        settings: of the network.
        advance: called with 1 after each step.
    """
    return ContourNetwork(
        train_network(train, settings, advance),
        settings,
        MaskCard(
            trained_on=tuple(sorted({one.case for one in train})),
            trained_on_slides=tuple(sorted({PIXELS + one.source for one in train})),
            facts=asdict(settings),
        ),
    )


def save_contours(path: Path, contours: ContourNetwork) -> None:
    """Write a network with its card as safetensors."""
    weights = {k: v.contiguous() for k, v in contours.network.state_dict().items()}
    facts = {"format": FORMAT, "card": json.dumps(asdict(contours.card))}
    write_atomic(path, save(weights, metadata=facts))


def load_contours(path: Path) -> ContourNetwork:
    """The network of a run folder, or of its file.

    Raises:
        FitError: there is none, or the file is damaged or another's.
    """
    file = path / NETWORK if path.is_dir() else path
    try:
        with safe_open(file, framework="pt") as stored:
            facts = stored.metadata() or {}
            if facts.get("format") != FORMAT:
                raise ValueError("it holds no network of contours")
            weights = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        card = MaskCard(**parse_json(facts["card"]))
        settings = all_of_stored(ContourSettings, card.facts, FitError)
        network = SliceUNet(settings.width)
        network.load_state_dict(weights)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise FitError(
            f"{file}: no network that draws contours ({error}). Name the run folder that training wrote; one "
            "of an earlier version has none: make it again."
        ) from error
    lists = (tuple(card.trained_on), tuple(card.trained_on_slides))
    card = MaskCard(trained_on=lists[0], trained_on_slides=lists[1], facts=card.facts)
    return ContourNetwork(network.eval().requires_grad_(requires_grad=False), settings, card)
