"""Cases that a table keeps for external validation: nothing that learns may have seen them in any way."""

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from features.backbones.card import read_card
from features.bags.bag import read_bag
from features.errors import BagError
from features.recipe import Recipe, learnt_part, recipe_parts
from mil.data.case import Row
from mil.data.cohort import Cohort
from mil.data.jobs import stain_sources
from mil.data.names import cases_among, matching
from mil.errors import LeakageError

STAIN_REMEDY = "Use a stain_reference of training cases."
WEIGHTS_REMEDY = "Use weights of other cases."


class Seen(NamedTuple):
    """What something that learnt has seen.

    Attributes:
        what: learnt, in words.
        names: of cases or slides.
        remedy: what to use instead.
        sources: fingerprints of slides, as ``Bag.sources``.
    """

    what: str
    names: Collection[str]
    remedy: str
    sources: Collection[str] = ()


def check_reserved(cohort: Cohort, head_weights: str = "") -> None:
    """Refuse bags, or weights to start from, that were fitted on a case kept for external validation.

    Raises:
        LeakageError: naming the cases.
    """
    if not cohort.reserved:
        return
    seen = list(_seen_by_bags(cohort))
    if head_weights:
        from mil.learning.head_weights import (
            read_head_weights,
        )  # loads torch, which only this needs

        start = read_head_weights(head_weights)
        what = "weights to start from were trained"
        seen.insert(0, Seen(what, start.trained_on, WEIGHTS_REMEDY, start.trained_on_slides))
    _refuse(cohort.reserved, seen, cohort.store)


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
        Seen("first weights were trained", card.trained_on if card else (), WEIGHTS_REMEDY),
        Seen("target stain was fitted", stain_sources(recipe), STAIN_REMEDY),
    ]
    _refuse(reserved, seen)


def _seen_by_bags(cohort: Cohort) -> Iterator[Seen]:
    trained = {name for bag in cohort.bags for name in bag.trained_on}
    slides = {source for bag in cohort.bags for source in bag.trained_on_slides}
    yield Seen(
        f"{learnt_part(cohort.recipe)} of these bags was trained", trained, WEIGHTS_REMEDY, slides
    )
    for part in recipe_parts(cohort.recipe):
        reference = part.get("stain_reference")
        if isinstance(reference, Mapping):
            names = {*reference["slides"], *reference["cases"]}
            sources = reference.get("sources", ())
            yield Seen("target stain of these bags was fitted", names, STAIN_REMEDY, sources)


def _refuse(reserved: Sequence[Row], seen: Sequence[Seen], store: Path | None = None) -> None:
    for what, names, remedy, sources in seen:
        slides = [(row.case, row.slide) for row in reserved]
        named = {row.case for row in reserved if matching([row.slide], names)}
        named |= _cases_with(reserved, store, sources)
        if cases := named.union(cases_among(slides, names)):
            listing = ", ".join(sorted(cases)[:3])
            raise LeakageError(
                f"The {what} on {len(cases)} of the cases that the table keeps for external validation "
                f"(split=test), e.g. {listing}. {remedy}"
            )


def _cases_with(reserved: Sequence[Row], store: Path | None, sources: Collection[str]) -> set[str]:
    """Cases of which a slide in the store has one of these fingerprints, whatever it was called elsewhere."""
    cases: set[str] = set()
    if store is None or not sources:
        return cases
    for row in reserved:
        with contextlib.suppress(BagError):  # a slide without a bag has no fingerprint to compare
            if not read_bag(store / f"{row.slide}.h5").sources.isdisjoint(sources):
                cases.add(row.case)
    return cases
