"""Answers for new slides and their cases: one row for each, whatever happens."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from features.bags.bag import Bag
from features.files.atomic import write_atomic
from features.files.tables import write_table
from features.progress import Progress
from features.summary import listed
from mil.answers.answer import (
    FAILED,
    Answer,
    NewSlide,
    Relation,
    answer_case,
    answer_slide,
    new_slides,
    relation_of,
    without_bag,
)
from mil.answers.gather import NewSlides, gather_slides
from mil.answers.new_inputs import NewInputs
from mil.answers.predictor import Fit, FitKey, Predictor, typical_fit
from mil.data.case import Row
from mil.evaluation.display import format_count

COLUMNS = (
    "level", "case", "slide", "outcome", "reason", "predicted", "set", "unlike", "mask", "tumour_mm2",
    "tiles", "trained_on_it",
)  # fmt: skip
BETWEEN = ";"  # the names of a set
NOTHING_PROMISED = (
    "Nothing is promised of slides whose tiles were chosen otherwise than in training."
)


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The answers of one model for new slides.

    Attributes:
        predictor: the model.
        slides: one row per slide, in the order they were given.
        cases: one row per case.
        new: the slides.
        relations: of the model to each case with a bag, by its name.
    """

    predictor: Predictor
    slides: tuple[Answer, ...]
    cases: tuple[Answer, ...]
    new: NewSlides
    relations: Mapping[str, Relation]

    def __repr__(self) -> str:
        """The model and how many slides and cases it answers for."""
        return (
            f"Answers({self.predictor.model} of {self.predictor.title}: "
            f"{format_count(len(self.slides), 'slide')}, {format_count(len(self.cases), 'case')})"
        )

    @property
    def rows(self) -> tuple[Answer, ...]:
        """Slides, then cases."""
        return self.slides + self.cases

    @property
    def promise(self) -> str:
        """What the answers are worth, in sentences."""
        if all(row.is_promised for row in self.slides):
            return self.predictor.reader.promise()
        return f"{NOTHING_PROMISED} For others: {self.predictor.reader.promise()}"

    def bag_of(self, row: Answer) -> Bag | None:
        """The bag of a slide's row; of several, that of ``fit_of``."""
        name = self.new.names[self.slides.index(row)]
        bag = self.new.bags.get(name)
        if row.case not in self.relations:
            return bag
        return self.new.own.get(name, {}).get(self.fit_of(row).key, bag)

    def fit_of(self, row: Answer) -> Fit:
        """The fit whose bag stands for a slide's row, whose case has a bag."""
        name = self.new.names[self.slides.index(row)]
        return typical_fit(self.relations[row.case].fits, self.new.own.get(name, {}))

    def own_bags(self, row: Answer) -> Mapping[FitKey, Bag]:
        """The bags of a slide's row by the backbone of each fit; none where all fits share one."""
        name = self.new.names[self.slides.index(row)]
        return self.new.own.get(name, {}) if self.predictor.embeds else {}

    @property
    def failed(self) -> tuple[Answer, ...]:
        """The slides that could not be read."""
        return tuple(row for row in self.slides if row.outcome == FAILED)

    def warnings(self) -> tuple[str, ...]:
        """Of which slides the answers cannot be used to judge the model, in sentences."""
        of: dict[str, list[str]] = {}
        for row in filter(lambda row: row.has_values, self.slides):
            known = row.case in self.relations and self.relations[row.case].known
            word = "outlined" if known and row.trained_on == "unknown" else row.trained_on
            of.setdefault(word, []).append(row.slide)
        sentences = {
            "yes": "The model, its backbone or a segmenter has learnt from the cases of {}: their answers "
            "cannot be used to judge the model.",
            "out of fold": "The cases of {} belong to this study: only fits that were not trained on them "
            "answer.",
            "outlined": "The cases of {} belong to this study, but their outlines do not say which cases the "
            "segmenter has seen: these answers cannot be used to judge the model. Without an outline, the "
            "segmenters of the folds that have not seen them draw the tumour.",
            "unknown": "The case of {} is not known, so the model may have seen it. Give a cohort table.",
        }  # fmt: skip
        return tuple(
            text.format(listed(of[word])) for word, text in sentences.items() if word in of
        )

    def worded(self, words: Callable[[str], str]) -> "Answers":
        """The answers with other words for what a reader can do, as flags for names of parameters.

        Args:
            words: a sentence in place of another.
        """

        def say(row: Answer) -> Answer:
            return replace(row, reason=words(row.reason), notes=tuple(map(words, row.notes)))

        return replace(
            self,
            predictor=replace(self.predictor, notes=tuple(map(words, self.predictor.notes))),
            slides=tuple(map(say, self.slides)),
            cases=tuple(map(say, self.cases)),
            new=replace(self.new, notes=tuple(map(words, self.new.notes))),
        )

    def write_csv(self, path: Path) -> None:
        """Write the rows; numbers in full precision, probabilities in columns ``p_<class>``."""
        names = self.predictor.reader.value_names
        rows = [
            [
                *_facts(row).values(),
                *(repr(row.values[name]) if row.values else "" for name in names),
                " ".join(row.notes),
            ]
            for row in self.rows
        ]
        write_table(path, [*COLUMNS, *names, "notes"], rows)

    def write_json(self, path: Path) -> None:
        """Write the rows, and what the answers are worth."""
        predictor = self.predictor
        rows = [
            {
                **_facts(row),
                "set": list(row.candidates),
                "unlike": None if math.isnan(row.unlike) else row.unlike,
                "tumour_mm2": None if math.isnan(row.tumour_mm2) else row.tumour_mm2,
                "tiles": row.n_tiles,
                "values": dict(row.values),
                "notes": list(row.notes),
            }
            for row in self.rows
        ]
        document: dict[str, Any] = {
            "study": predictor.title,
            "model": predictor.model,
            "fits": len(predictor.fits),
            "known_cases": predictor.reader.n_cases,
            "performance": predictor.performance,
            "promise": self.promise,
            "record": predictor.reader.record,
            "notes": [*predictor.notes, *self.new.notes, *self.warnings()],
            "answers": rows,
        }
        write_atomic(path, json.dumps(document, indent=1, allow_nan=False) + "\n")


def predict_inputs(
    predictor: Predictor,
    inputs: NewInputs,
    store: Path,
    *,
    table: Sequence[Row] = (),
    progress: Progress | None = None,
) -> Answers:
    """Answer for bags and slides; slides are extracted as the model's own bags were.

    Args:
        predictor: the model.
        inputs: the files, and how they become bags.
        store: folder in which bags of slides are written.
        table: as of ``predict_slides``; an mpp column is used instead of what the slides say.
        progress: shows slides and tiles.

    Raises:
        RunError, BackboneError: as ``gather_slides``.
        CohortError: the model reads a column that is not in the table.
    """
    new = gather_slides(predictor, inputs, store, table=table, progress=progress)
    return predict_slides(predictor, new, table=table)


def predict_slides(
    predictor: Predictor, slides: NewSlides, *, table: Sequence[Row] = ()
) -> Answers:
    """Answer for each slide, then for each case from its slides.

    Args:
        predictor: the model.
        slides: with their bags, or why they have none.
        table: rows that say which case each slide belongs to, with the clinical columns a model may read.
    """
    known = {row.slide: row for row in table}
    new = {
        name: _with_tiles(slide, slides, name)
        for name, slide in zip(slides.bags, new_slides(predictor, slides.bags, table), strict=True)
    }
    grouped: dict[str, list[NewSlide]] = {}
    for one in new.values():
        grouped.setdefault(one.case or one.bag.slide, []).append(one)
    relations = {case: relation_of(predictor, group) for case, group in grouped.items()}
    rows: list[Answer] = []
    by_case: dict[str, list[Answer]] = {}
    usable: dict[str, list[NewSlide]] = {}
    for name in slides.names:
        if name in slides.unusable:
            line = known.get(name)
            case = (line.case if line else "") or predictor.names.get(name, "")
            row = without_bag(name, case, slides.unusable[name], slides.masks.get(name, ""))
        else:
            one = new[name]
            row, read = answer_slide(predictor, one, relations[one.case or one.bag.slide])
            if row.has_values:
                usable.setdefault(row.case, []).append(read)
        rows.append(row)
        by_case.setdefault(row.case, []).append(row)
    nothing = relation_of(predictor, [])
    cases = [
        answer_case(predictor, own, usable.get(case, []), relations.get(case, nothing))
        for case, own in by_case.items()
    ]
    return Answers(
        predictor=predictor,
        slides=tuple(rows),
        cases=tuple(cases),
        new=slides,
        relations=relations,
    )


def _with_tiles(slide: NewSlide, slides: NewSlides, name: str) -> NewSlide:
    """A slide with how its tiles were chosen."""
    return replace(
        slide,
        mask=slides.masks.get(name, _region(slide.bag)),
        segmented=slides.segmented.get(name),
        own=slides.own.get(name, {}),
    )


def _region(bag: Bag) -> str:
    """Where the tiles of a bag come from, in words."""
    region = str(bag.recipe.get("region", ""))
    return {"tissue": "all tissue", "segmented": "segmenter"}.get(region, region)


def _facts(row: Answer) -> dict[str, Any]:
    """The columns of a row."""
    cells = (
        row.level, row.case, row.slide, row.outcome, row.reason, row.predicted, BETWEEN.join(row.candidates),
        "" if math.isnan(row.unlike) else f"{row.unlike:.3f}", row.mask,
        "" if math.isnan(row.tumour_mm2) else f"{row.tumour_mm2:.3f}", str(row.n_tiles), row.trained_on,
    )  # fmt: skip
    return dict(zip(COLUMNS, cells, strict=True))
