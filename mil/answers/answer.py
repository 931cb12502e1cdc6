"""The answer for a new slide or case: what the model says, or why it says nothing."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from features.bags.bag import Bag
from features.errors import NoTiles
from features.summary import join_names
from mil.answers.masks import (
    FOLDS,
    OTHER_REGION,
    OUTLINE,
    OUTLINED,
    UNPROMISED,
    nothing_left,
    tiles_marked,
)
from mil.answers.predictor import Fit, FitKey, Predictor, typical_fit
from mil.data.case import Row
from mil.data.names import patient_of
from mil.data.new_columns import unlike_values, unread_values
from mil.errors import FitError
from mil.likeness.reference import describe
from mil.likeness.rescans import Rescan
from mil.segmentation.application import AppliedSlide

ANSWERED, UNDECIDED, ABSTAINED, FAILED = "answered", "undecided", "abstained", "failed"
OUTCOMES = (ANSWERED, UNDECIDED, ABSTAINED, FAILED)
NO_REFERENCE = (
    "nothing is known of the slides that the model learnt from, so that this one cannot be compared"
)
TOO_FEW_CASES = "there are too few other training cases to tell whether it is like them"
SEEN_BY_MAKER = (
    "The backbone or the segmenter has learnt from this case or slide, so that its answer does not show how "
    "well the model does."
)
OTHER_NAME = "Its file or its bag is that of a training slide, whatever its names say."


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
        mask: where its tiles come from: ``annotations``, ``segmenter``, ``segmenters`` (one of each fold,
            for its fit), ``all tissue`` or ``volume``; empty where none were taken.
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
    def is_promised(self) -> bool:
        """Whether its tiles were chosen as those of training slides, so that sets are worth what they say."""
        return not set(self.notes) & set(UNPROMISED)

    @property
    def has_values(self) -> bool:
        """Whether the model has said something."""
        return self.outcome in (ANSWERED, UNDECIDED)


@dataclass(frozen=True, kw_only=True)
class NewSlide:
    """A slide to be answered for.

    Attributes:
        bag: of its tiles; of one fit's, where each fit has its own.
        case: its name; empty where it is not known.
        mask: where the tiles come from.
        segmented: what a segmenter made of it, where one chose the tiles.
        other: further columns of a table for its case.
        rescans: the training slides that it looks like a second scan of.
        own: the bag that each fit reads, where each has one of its own.
    """

    bag: Bag
    case: str = ""
    mask: str = ""
    segmented: AppliedSlide | None = None
    other: Mapping[str, str] = field(default_factory=dict)
    rescans: tuple[Rescan, ...] = ()
    own: Mapping[FitKey, Bag] = field(default_factory=dict)

    def bag_of(self, fit: Fit) -> Bag:
        """What a fit reads."""
        return self.own.get(fit.key, self.bag)


@dataclass(frozen=True, kw_only=True)
class Relation:
    """What a model has to do with a case.

    Attributes:
        known: fingerprints of the training cases that it belongs to, by name, bag or file.
        fits: those to ask: that were not trained on it; all of them where every one was.
        trained_on: see ``Answer.trained_on``.
        notes: what a reader should know.
    """

    known: frozenset[str]
    fits: tuple[Fit, ...]
    trained_on: str
    notes: tuple[str, ...] = ()


def new_slides(
    predictor: Predictor, bags: Mapping[str, Bag], table: Sequence[Row]
) -> list[NewSlide]:
    """The slides of bags with their cases, by the table, the study or the bag, and as second scans."""
    rows = {row.slide: row for row in table}
    rescans = predictor.rescans(bags)
    slides = []
    for name, bag in bags.items():
        row = rows.get(bag.slide)
        case = (row.case if row else "") or predictor.names.get(bag.slide, "") or bag.case
        other = row.other if row else {}
        slides.append(NewSlide(bag=bag, case=case, other=other, rescans=rescans.get(name, ())))
    return slides


def without_bag(slide: str, case: str, error: Exception, mask: str = "") -> Answer:
    """The row of a slide that could not be made a bag of, or has no tissue that suits."""
    outcome, reason = FAILED, str(error)
    if isinstance(error, NoTiles):
        outcome, reason = ABSTAINED, nothing_left(mask, error)
    used = mask if outcome == ABSTAINED else ""  # no tiles were taken of one that failed
    return Answer(
        level="slide", case=case or slide, slide=slide, outcome=outcome, reason=reason, mask=used
    )


def relation_of(predictor: Predictor, slides: Sequence[NewSlide]) -> Relation:
    """What a model has to do with a case.

    Args:
        predictor: the model.
        slides: all of the case.
    """
    known = frozenset[str]().union(*(predictor.known_cases(s.bag, s.case) for s in slides))
    known |= {rescan.case for slide in slides for rescan in slide.rescans}
    fits = tuple(
        fit
        for fit in predictor.fits
        if all(fit in predictor.unseeing(slide.bag, known) for slide in slides)
    )
    word = "no" if known else "unknown"
    if len(fits) < len(predictor.fits):
        word = "out of fold" if fits else "yes"
    if word == "out of fold" and any(slide.mask == OUTLINE for slide in slides):
        word = "unknown"  # an outline does not say which cases its segmenter has seen
    seen = any(
        _seen_by_maker(predictor, slide.bag_of(fit), known, slide.case)
        for slide in slides
        for fit in (fits or predictor.fits)
    )
    return Relation(
        known=known,
        fits=fits or predictor.fits,
        trained_on="yes" if seen else word,
        notes=(SEEN_BY_MAKER,) if seen else (),
    )


def answer_slide(
    predictor: Predictor, new: NewSlide, relation: Relation
) -> tuple[Answer, NewSlide]:
    """The answer for one slide, and the slide with its bags as the model reads them.

    A slide whose case is not known counts as a case by itself.

    Raises:
        CohortError: the model reads a column that is not given.
    """
    fit = typical_fit(relation.fits, new.own)
    bag = new.bag_of(fit)
    row = Answer(
        level="slide",
        case=new.case or bag.slide,
        slide=bag.slide,
        outcome=FAILED,
        mask=new.mask,
        tumour_mm2=_area_mm2(bag, new.mask),
        n_tiles=_n_tiles(bag, new.mask),
        trained_on=relation.trained_on,
    )
    try:
        if problem := _unreadable(bag):
            return replace(row, reason=problem), new
        bag, how = predictor.suit(bag, fit.key)
        own = {key: predictor.suit(one, key)[0] for key, one in new.own.items()}
        new = replace(new, bag=bag, own=own)
        how = how or OUTLINED * (new.mask == OUTLINE)
        notes = [*([how] if how else []), *relation.notes]
        notes += _identity_notes(predictor, new, bag)
        row = replace(row, notes=tuple(notes))
        if predictor.reads_tiles:
            row = _compared(row, predictor, new, relation, same_region=how != OTHER_REGION)
            row = _with_mask(_with_folds(row, new, relation.fits), new.segmented)
        else:
            row = _with_columns(row, relation, new.other)
        return row if row.reason else _read(row, predictor, relation, [new]), new
    except FitError as error:
        return replace(row, reason=str(error)), new


def _identity_notes(predictor: Predictor, new: NewSlide, bag: Bag) -> list[str]:
    """Remarks on a slide that is a training slide, or looks like another scan of one, under another name."""
    own = {predictor.hide(new.case)} if new.case else set()
    known = predictor.known_cases(bag, new.case)
    notes = [OTHER_NAME] if own and known - own else []
    return notes + [
        f"It looks like a second scan of {predictor.describe_slide(rescan.slide)}: {rescan.scan}. It is "
        "taken for a slide of that case."
        for rescan in new.rescans
        if rescan.case not in known
    ]


def answer_case(
    predictor: Predictor,
    rows: Sequence[Answer],
    slides: Sequence[NewSlide],
    relation: Relation,
) -> Answer:
    """The answer for a case from all slides that have one.

    Args:
        predictor: the model.
        rows: of its slides.
        slides: those of them with an answer, with their bags as the model reads them.
        relation: of the model to the case.
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
        trained_on=relation.trained_on,
        notes=tuple(dict.fromkeys(note for row in rows for note in row.notes)),
    )
    left_out = [f"{row.slide} ({row.outcome})" for row in rows if not row.has_values]
    if not slides:
        outcome = FAILED if all(row.outcome == FAILED for row in rows) else ABSTAINED
        reason = f"no slide answers: {', '.join(left_out)}"
        return replace(base, outcome=outcome, reason=reason)
    if left_out:
        base = replace(base, notes=(*base.notes, f"Without {', '.join(left_out)}."))
    return _read(base, predictor, relation, slides)


def _compared(
    row: Answer, predictor: Predictor, new: NewSlide, relation: Relation, *, same_region: bool
) -> Answer:
    """The row with how the slide compares with training slides; with a reason where nothing is answered."""
    reference = predictor.reference
    if reference is None:
        return replace(row, outcome=ABSTAINED, reason=NO_REFERENCE)
    distance = predictor.distance(new.bag, new.own, relation.fits)
    likeness = reference.compare(new.bag, relation.known, same_region=same_region, ratio=distance)
    row = replace(row, unlike=likeness.ratio, notes=(*row.notes, *likeness.notes))
    if likeness.unfit:
        return replace(row, reason=likeness.unfit)
    if likeness.abstains:
        return replace(row, outcome=ABSTAINED, reason=likeness.abstains)
    if math.isnan(likeness.ratio):
        return replace(row, outcome=ABSTAINED, reason=TOO_FEW_CASES)
    return row


def _with_columns(row: Answer, relation: Relation, other: Mapping[str, str]) -> Answer:
    """The row of a model that reads a table; with a reason where a column is unlike what it learnt from."""
    encodings = [fit.model.encoding for fit in relation.fits if fit.model.encoding]
    cases = {"": other}
    row = replace(row, notes=(*row.notes, *unread_values(encodings, cases)))
    unlike = unlike_values(encodings, cases)
    return replace(row, outcome=ABSTAINED, reason="; ".join(unlike)) if unlike else row


def _with_folds(row: Answer, new: NewSlide, fits: Sequence[Fit]) -> Answer:
    """The row with how many segmenters of folds mark no tile; with a reason where most of them do not."""
    if new.mask != FOLDS or (row.outcome == FAILED and row.reason):
        return row
    none = sum(not tiles_marked(new.bag_of(fit)) for fit in fits)
    if not row.n_tiles:
        reason = f"no tile lies in what {none} of {len(fits)} segmenters mark as tumour"
        return replace(row, outcome=ABSTAINED, reason="; ".join(filter(None, [reason, row.reason])))
    note = f"{none} of {len(fits)} segmenters mark no tile of it as tumour: their fits read all tissue."
    return replace(row, notes=(*row.notes, note)) if none else row


def _with_mask(row: Answer, segmented: AppliedSlide | None) -> Answer:
    """The row with how the slide compares with those that its segmenter learnt from."""
    if segmented is None or (row.outcome == FAILED and row.reason):
        return row
    if segmented.unlike:
        reasons = filter(None, [row.reason, segmented.unlike])
        return replace(row, outcome=ABSTAINED, reason="; ".join(reasons))
    return replace(row, notes=(*row.notes, *filter(None, [segmented.note])))


def _seen_by_maker(predictor: Predictor, bag: Bag, known: frozenset[str], case: str) -> bool:
    """Whether the backbone or the segmenter that made a bag has learnt from its case or slide."""
    names = {
        *bag.trained_on,
        *map(predictor.hide, bag.trained_on),
    }  # or hidden by its own segmenter
    own = known | {predictor.hide(name) for name in (case, patient_of(bag.slide)) if name}
    return bool(own & names) or not bag.sources.isdisjoint(bag.trained_on_slides)


def _unreadable(bag: Bag) -> str:
    """Why nothing can be computed from a bag; empty if something can."""
    if not len(bag):
        return "the bag has no tile"
    return "" if np.isfinite(describe(bag)).all() else "the bag has features that are not finite"


def _read(
    row: Answer, predictor: Predictor, relation: Relation, slides: Sequence[NewSlide]
) -> Answer:
    """The row with what the fits answer for these slides of a case."""
    bags = [slide.bag_of for slide in slides]
    answers = predictor.answers(relation.fits, bags, slides[0].other)
    reading = predictor.reader.read(answers, relation.known)
    decided = len(reading.candidates) == 1
    between = f"undecided between {join_names(reading.candidates)}" if reading.candidates else ""
    undecided = between or "no answer is plausible"
    return replace(
        row,
        outcome=ANSWERED if decided else UNDECIDED,
        reason="" if decided else undecided,
        predicted=reading.predicted if reading.candidates else "",
        candidates=reading.candidates,
        values=reading.values,
    )


def _n_tiles(bag: Bag, mask: str) -> int:
    """The tiles of a mask."""
    return tiles_marked(bag) if mask == FOLDS else len(bag)


def _area_mm2(bag: Bag, mask: str) -> float:
    """The area of a mask inside the tiles; NaN where all tissue was used, of volumes, or without places."""
    if mask in ("", "all tissue") or bag.volume or not all(bag.side_l0):
        return math.nan
    if not _n_tiles(bag, mask):
        return 0.0
    tile_um2 = bag.side_l0[0] * bag.mpp_l0[0] * bag.side_l0[1] * bag.mpp_l0[1]
    return float(np.sum(bag.coverage, dtype=np.float64)) * tile_um2 / 1e6
