"""The table of explanation methods. Adding one is one file and one row here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from features.choices import unknown_problem
from mil.errors import UnknownModel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from features.backbones.registry import Backbone
    from mil.explanation.gradcam import TileMaps
    from mil.explanation.scores import TileScores
    from mil.explanation.target import ExplanationTarget
    from mil.heads.head import Head


def _reads_tiles(head: "type[Head]") -> bool:
    return head.learns_from in ("bags", "tiles")


def _reads_bags(head: "type[Head]") -> bool:
    return head.learns_from not in ("table", "counts")


def _learns_attention(head: "type[Head]") -> bool:
    return head.learns_attention


def _adds_up(head: "type[Head]") -> bool:
    return head.adds_up


@dataclass(frozen=True, kw_only=True)
class Method:
    """An explanation method; called with a target it returns its scores.

    Attributes:
        name: on the command line and in file names.
        function: ``module:function`` from an ``ExplanationTarget`` to ``TileScores``. It must answer for a
            bag of one tile with a finite score, say the same when called twice, and leave the bag alone. A
            bag without tiles is an error of the head: what is left of a bag is scored by
            ``target.subset_scores``, to which none is the mean training tile.
        description: one sentence.
        suits: whether a class of heads has such maps.
        pixels: ``module:function`` from (target, backbone, tiles (K, H, W, 3)) to ``TileMaps``, of a method
            that also looks into tiles; it needs the slide.
        by_region: whether all tiles of a region have one score.
        linear_only: whether the score must be linear in the logits.
        instant: whether a viewer can compute it on demand.
    """

    name: str
    function: str
    description: str
    suits: "Callable[[type[Head]], bool]" = _reads_tiles
    pixels: str = ""
    by_region: bool = False
    linear_only: bool = False
    instant: bool = False

    @property
    def needs_slide(self) -> bool:
        """Whether the slide's pixels are needed."""
        return bool(self.pixels)

    def __call__(self, target: "ExplanationTarget") -> "TileScores":
        """Score the tiles."""
        scores: TileScores = _resolve(self.function)(target)
        return scores

    def tile_maps(
        self, target: "ExplanationTarget", backbone: "Backbone", tiles: "NDArray[np.uint8]"
    ) -> "TileMaps":
        """Look into tiles (K, H, W, 3) of a slide."""
        maps: TileMaps = _resolve(self.pixels)(target, backbone, tiles)
        return maps


_ROWS = (
    Method(
        name="evidence",
        function="mil.explanation.evidence:evidence_scores",
        description="each tile's exact share of the score",
        suits=_adds_up,
        linear_only=True,
        instant=True,
    ),
    Method(
        name="attention",
        function="mil.explanation.attention:target_attention",
        description="where the head looks",
        suits=_learns_attention,
        instant=True,
    ),
    Method(
        name="single-tile",
        function="mil.explanation.single_tile:single_tile_scores",
        description="the score of each tile as a slide of its own",
        instant=True,
    ),
    Method(
        name="integrated-gradients",
        function="mil.explanation.gradients:integrated_gradients_scores",
        description="gradients averaged along the path from the mean training tile",
    ),
    Method(
        name="gradient",
        function="mil.explanation.gradients:gradient_scores",
        description="the gradient times the distance from the mean training tile",
    ),
    Method(
        name="ablation",
        function="mil.explanation.regions:ablation_scores",
        description="how far the score falls without a region",
        suits=_reads_bags,
        by_region=True,
    ),
    Method(
        name="shapley",
        function="mil.explanation.regions:shapley_scores",
        description="Shapley values of regions",
        suits=_reads_bags,
        by_region=True,
    ),
    Method(
        name="grad-cam",
        function="mil.explanation.evidence:evidence_or_single_tile",
        description="evidence, and where in the highest tiles it lies",
        pixels="mil.explanation.gradcam:tile_maps",
    ),
    Method(
        name="guided-grad-cam",
        function="mil.explanation.evidence:evidence_or_single_tile",
        description="the same with guided backpropagation, which shows edges",
        pixels="mil.explanation.gradcam:guided_tile_maps",
    ),
)

METHODS: Mapping[str, Method] = {row.name: row for row in _ROWS}


def list_methods() -> tuple[Method, ...]:
    """All explanation methods; loads no torch.

    Example:
        for method in mil.list_methods():
            print(f"{method.name}: {method.description}")
    """
    return tuple(METHODS.values())


def bag_methods() -> tuple[Method, ...]:
    """The methods that need nothing but a bag."""
    return tuple(method for method in METHODS.values() if not method.needs_slide)


def default_method(head: "type[Head]", *, linear: bool) -> Method:
    """The map that says most of a model: evidence where its answer is a sum over tiles.

    Where it is none, the answer for single tiles follows for heads without attention, and attention for
    the others: it shows where such a head looks, which need not be what it concludes from.

    Args:
        head: the class of its head.
        linear: whether its score is linear in its logits.
    """
    suited = (method for method in list_methods() if method.instant and method.suits(head))
    return next((m for m in suited if linear or not m.linear_only), METHODS["ablation"])


def find_method(name: str) -> Method:
    """A method by its name.

    Raises:
        UnknownModel: there is none; the message names the nearest.
    """
    if problem := unknown_problem("method", [name], list(METHODS)):
        raise UnknownModel(problem)
    return METHODS[name]


def _resolve(reference: str) -> Any:
    module, _, function = reference.partition(":")
    return getattr(import_module(module), function)
