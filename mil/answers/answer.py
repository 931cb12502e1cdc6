"""The answer for a new slide or case: what the model says, or why it says nothing."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from features.bags.bag import Bag
from features.errors import NoTiles
from mil.answers.hidden import hidden
from mil.answers.predictor import Fit, Predictor
from mil.answers.reference import Likeness, describe
from mil.errors import FitError

ANSWERED, UNDECIDED, ABSTAINED, FAILED = "answered", "undecided", "abstained", "failed"
OUTCOMES = (ANSWERED, UNDECIDED, ABSTAINED, FAILED)
ALL_TISSUE = "The model learnt from tumour, and this is all tissue: nothing is promised."


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model answers for one slide or one case.

    Attributes:
        level: ``slide`` or ``case``.
        case: its name; that of the slide where the case is not known.
        slide: its name; empty for a case.
        outcome: ``answered``; ``undecided`` between several candidates; ``abstained``, as the model does not
            know; ``failed``, as the slide cannot be read.
        reason: why there is no single answer; else empty.
        predicted: the most probable answer, where there is one.
        candidates: the answers that cannot be told apart.
        unlike: see ``Likeness.ratio``; NaN where it is not known.
        mask: where the tiles come from: ``annotations``, ``segmenter`` or ``all tissue``.
        tumour_mm2: area of the mask, in square millimetres; NaN without one.
        n_tiles: tiles that were read.
        trained_on: whether the model was trained on the case: ``yes``, ``no``, ``unknown``, or ``out of
            fold`` where fits that have not seen it have answered.
        values: by name, as probabilities by ``p_<class>``; empty where nothing is answered.
        notes: what a reader should know.
    """

    level: str
    case: str
    slide: str
    outcome: str
    reason: str = ""
    predicted: str = ""
    candidates: tuple[str, ...] = ()
    unlike: float = math.nan
    mask: str = ""
    tumour_mm2: float = math.nan
    n_tiles: int = 0
    trained_on: str = "unknown"
    values: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def has_values(self) -> bool:
        """Whether the model has said something."""
        return self.outcome in (ANSWERED, UNDECIDED)


@dataclass(frozen=True, kw_only=True)
class NewSlide:
    """A slide to be answered for.

    Attributes:
        bag: of its tiles.
        case: its name; empty where it is not known.
        mask: where the tiles come from.
        other: further columns of a table for its case.
    """

    bag: Bag
    case: str = ""
    mask: str = ""
    other: Mapping[str, str] = field(default_factory=dict)


def without_bag(slide: str, error: Exception) -> Answer:
    """The row of a slide that could not be made a bag of, or has no tissue that suits."""
    outcome, reason = FAILED, str(error)
    if isinstance(error, NoTiles):
        outcome = ABSTAINED
        reason = "nothing to answer from: no tile of it lies in tissue inside the mask"
    return Answer(level="slide", case=slide, slide=slide, outcome=outcome, reason=reason)


def answer_slide(predictor: Predictor, new: NewSlide) -> tuple[Answer, Bag]:
    """The answer for one slide, and its bag as the model reads it.

    A slide whose case is not known counts as a case by itself.

    Raises:
        CohortError: the model reads a column that is not given.
    """
    bag = new.bag
    row = Answer(
        level="slide",
        case=new.case or bag.slide,
        slide=bag.slide,
        outcome=FAILED,
        mask=new.mask,
        tumour_mm2=_area_mm2(bag, new.mask),
        n_tiles=len(bag),
    )
    try:
        if problem := _unreadable(bag):
            return replace(row, reason=problem), bag
        bag, same_region = predictor.suit(bag)
        fits, trained_on = _fits(predictor, new)
        likeness = Likeness()
        if predictor.reference is not None and predictor.reads_tiles:
            known_as = _known_as(predictor, new)
            likeness = predictor.reference.compare(bag, known_as, same_region=same_region)
        notes = likeness.notes if same_region else (*likeness.notes, ALL_TISSUE)
        row = replace(row, unlike=likeness.ratio, trained_on=trained_on, notes=notes)
        if likeness.unfit:
            return replace(row, reason=likeness.unfit), bag
        if likeness.abstains:
            return replace(row, outcome=ABSTAINED, reason=likeness.abstains), bag
        return _read(row, predictor, fits, [bag], new), bag
    except FitError as error:
        return replace(row, reason=str(error)), bag


def answer_case(
    predictor: Predictor, rows: Sequence[Answer], slides: Sequence[tuple[NewSlide, Bag]]
) -> Answer:
    """The answer for a case from all slides that have one.

    Args:
        predictor: the model.
        rows: of its slides.
        slides: those of them with an answer, and their bags as the model reads them.
    """
    first = rows[0]
    if len(rows) == 1:
        return replace(first, level="case", slide="")
    ratios = [row.unlike for row in rows if row.has_values and not math.isnan(row.unlike)]
    base = Answer(
        level="case",
        case=first.case,
        slide="",
        outcome=ABSTAINED,
        unlike=max(ratios, default=math.nan),
        mask=", ".join(dict.fromkeys(row.mask for row in rows if row.mask)),
        tumour_mm2=sum(row.tumour_mm2 for row in rows if row.has_values) if slides else math.nan,
        n_tiles=sum(row.n_tiles for row in rows if row.has_values),
        trained_on=first.trained_on,
        notes=tuple(dict.fromkeys(note for row in rows for note in row.notes)),
    )
    left_out = [f"{row.slide} ({row.outcome})" for row in rows if not row.has_values]
    if not slides:
        outcome = FAILED if all(row.outcome == FAILED for row in rows) else ABSTAINED
        reason = f"no slide answers: {', '.join(left_out)}"
        return replace(base, outcome=outcome, reason=reason)
    if left_out:
        base = replace(base, notes=(*base.notes, f"Without {', '.join(left_out)}."))
    fits, trained_on = _fits(predictor, slides[0][0])
    base = replace(base, trained_on=trained_on)
    return _read(base, predictor, fits, [bag for _, bag in slides], slides[0][0])


def _fits(predictor: Predictor, new: NewSlide) -> tuple[tuple[Fit, ...], str]:
    """The fits to ask, and what they have to do with the case."""
    used, case = new.bag.data_sha256 in predictor.bags, _known_as(predictor, new)
    unseeing = predictor.unseeing(case)
    if not case:
        return predictor.fits, "yes" if used else "unknown"
    if len(unseeing) == len(predictor.fits):
        return predictor.fits, "no"
    return (unseeing, "out of fold") if unseeing else (predictor.fits, "yes")


def _unreadable(bag: Bag) -> str:
    """Why nothing can be computed from a bag; empty if something can."""
    if not len(bag):
        return "the bag has no tile"
    return "" if np.isfinite(describe(bag)).all() else "the bag has features that are not finite"


def _known_as(predictor: Predictor, new: NewSlide) -> str:
    """The fingerprint of a slide's case; empty where it is not known."""
    if new.case:
        return hidden(new.case)
    return predictor.cases.get(hidden(new.bag.slide), "")


def _read(
    row: Answer, predictor: Predictor, fits: Sequence[Fit], bags: Sequence[Bag], new: NewSlide
) -> Answer:
    """The row with what the fits answer."""
    known_as = _known_as(predictor, new)
    reading = predictor.reader.read(predictor.answers(fits, bags, new.other), known_as)
    decided = len(reading.candidates) == 1
    between = " and ".join(reading.candidates)
    undecided = f"undecided between {between}" if between else "no answer is plausible"
    return replace(
        row,
        outcome=ANSWERED if decided else UNDECIDED,
        reason="" if decided else undecided,
        predicted=reading.predicted,
        candidates=reading.candidates,
        values=reading.values,
    )


def _area_mm2(bag: Bag, mask: str) -> float:
    """The area of a mask inside the tiles; NaN where all tissue was used or there are no places."""
    if not mask or mask == "all tissue" or not all(bag.side_l0):
        return math.nan
    tile_um2 = bag.side_l0[0] * bag.mpp_l0[0] * bag.side_l0[1] * bag.mpp_l0[1]
    return float(np.sum(bag.coverage, dtype=np.float64)) * tile_um2 / 1e6
