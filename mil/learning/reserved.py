"""Cases that a table keeps for external validation: nothing that learns may have seen them in any way."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from features.backbones.card import read_card
from features.recipe import Recipe, learnt_part, recipe_parts
from mil.data.case import Row
from mil.data.cohort import Cohort
from mil.data.jobs import stain_sources
from mil.data.names import cases_among, matching
from mil.errors import LeakageError
from mil.learning.head_weights import read_head_weights

STAIN_REMEDY = "Use a stain_reference of training cases."
WEIGHTS_REMEDY = "Use weights of other cases."
Seen = tuple[str, Collection[str], str]


def check_reserved(cohort: Cohort, head_weights: str = "") -> None:
    """Refuse bags, or weights to start from, that were fitted on a case kept for external validation.

    Raises:
        LeakageError: naming the cases.
    """
    if cohort.reserved:
        start = read_head_weights(head_weights).trained_on if head_weights else ()
        seen = [("weights to start from were trained", start, WEIGHTS_REMEDY)]
        _refuse(cohort.reserved, [*seen, *_seen_by_bags(cohort)])


def check_reserved_inputs(recipe: Recipe, reserved: Sequence[Row]) -> None:
    """Refuse to fine-tune from weights, or with a stain, that were fitted on a case kept for validation.

    Raises:
        LeakageError: naming the cases.
        BackboneError, FeaturesError: the weights or the stain cannot be read.
    """
    if not reserved:
        return
    card = read_card(Path(recipe.weights))
    seen = [
        ("first weights were trained", card.trained_on if card else (), WEIGHTS_REMEDY),
        ("target stain was fitted", stain_sources(recipe), STAIN_REMEDY),
    ]
    _refuse(reserved, seen)


def _seen_by_bags(cohort: Cohort) -> Iterator[Seen]:
    trained = {name for bag in cohort.bags for name in bag.trained_on}
    yield f"{learnt_part(cohort.recipe)} of these bags was trained", trained, WEIGHTS_REMEDY
    for part in recipe_parts(cohort.recipe):
        reference = part.get("stain_reference")
        if isinstance(reference, Mapping):
            names = {*reference["slides"], *reference["cases"]}
            yield "target stain of these bags was fitted", names, STAIN_REMEDY


def _refuse(reserved: Sequence[Row], seen: Sequence[Seen]) -> None:
    for what, names, remedy in seen:
        slides = [(row.case, row.slide) for row in reserved]
        named = {row.case for row in reserved if matching([row.slide], names)}
        if cases := named.union(cases_among(slides, names)):
            listing = ", ".join(sorted(cases)[:3])
            raise LeakageError(
                f"The {what} on {len(cases)} of the cases that the table keeps for external validation "
                f"(split=test), e.g. {listing}. {remedy}"
            )
