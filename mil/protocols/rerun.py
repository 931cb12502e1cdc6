"""Do what a study did on one's own cohort: each arm's tile predictions, and what follows from them."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_fscore_support

from features.bags.bag import Bag, read_bag
from features.extraction.extract import extract
from features.extraction.outputs import store_specs
from features.extraction.survey import SlideJob
from features.files.atomic import write_atomic
from features.progress import Progress
from features.recipe import Recipe
from mil.data.cohort import Row, assemble, split_train_test
from mil.data.names import matching
from mil.data.splits import Fold, split_cases
from mil.errors import FitError, LeakageError, ProtocolError
from mil.evaluation.classification.evaluate import evaluate
from mil.evaluation.predictions import COLUMNS, PREFIX, Predictions
from mil.finetune.distributed import Ranks
from mil.finetune.files import WEIGHTS, load_classifier
from mil.finetune.tiles import LabelledSlide
from mil.finetune.training import finetune
from mil.learning.crossval import check_fit, check_seen, fold_seed
from mil.learning.fitted import load_fitted, save_fitted
from mil.learning.prediction import run_head
from mil.learning.training import fit
from mil.protocols.protocol import Arm, Protocol

TILE_MODEL = (
    "tile-vote"  # the classifier of frozen arms: two fully connected layers on single tiles
)


@dataclass(frozen=True)
class Part:
    """Who trains and who is tested; in an arm tested on further tiles they are the same cases."""

    index: int
    train: tuple[str, ...]
    test: tuple[str, ...]
    repeat: int = 0


@dataclass(frozen=True, eq=False)
class SlideTiles:
    """The class probabilities of one tested slide's tiles, (N, C)."""

    part: Part
    case: str
    slide: str
    label: str
    p: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class ArmResult:
    """What one arm came to on this cohort.

    Attributes:
        arm: what was done.
        measures: as named in ``MEASURES``; over tiles the mean of the parts. None where undefined.
        intervals: 95 % limits of the measures over cases.
        predictions: the slides' mean probabilities; None where the tested cases have trained.
        n_tiles, n_cases: tested.
        seconds: that embedding the tested tiles took.
    """

    arm: Arm
    measures: Mapping[str, float | None]
    intervals: Mapping[str, tuple[float, float]]
    predictions: Predictions | None
    n_tiles: int
    n_cases: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Rerun:
    """A protocol on a cohort, ready to be run.

    Attributes:
        protocol: what is to be done.
        rows: of the table, each with a label.
        jobs: the same slides.
        out: where weights, bags and fits go; what an interrupted run has left there is taken up.
        ranks, workers: what to compute on.
        progress: told of slides, steps and tiles.
    """

    protocol: Protocol
    rows: Sequence[Row]
    jobs: Sequence[SlideJob]
    out: Path
    ranks: Ranks
    workers: int
    progress: Progress

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels, sorted."""
        return tuple(sorted({row.label for row in self.rows}))

    def results(self) -> Iterator[ArmResult]:
        """Run the arms one after another.

        Raises:
            ProtocolError: the cohort cannot carry the protocol.
            LeakageError: weights have seen a case that would be tested.
            FitError: a slide cannot be used, or a training failed.
        """
        for arm in self.protocol.arms:
            parts = self.parts(arm)
            tested = [tiles for part in parts for tiles in self._tested(arm, part)]
            seconds = sum(self._told(arm, part)["seconds"] for part in parts)
            yield summed_up(arm, tested, self.classes, seconds)

    def parts(self, arm: Arm) -> tuple[Part, ...]:
        """Who trains and who is tested in an arm."""
        cases = {row.case: row for row in sorted(self.rows, key=lambda row: row.case)}
        if arm.test == "tiles":
            return (Part(0, tuple(cases), tuple(cases)),)
        if arm.test == "external":
            return (_external(self.rows),)
        folds = split_cases(
            list(cases),
            [row.label for row in cases.values()],
            [row.site for row in cases.values()],
            self.protocol.settings_of("split"),
        )
        return tuple(Part(fold.index, fold.train, fold.test, fold.repeat) for fold in folds)

    def _tested(self, arm: Arm, part: Part) -> Iterator[SlideTiles]:
        """The tested tiles of a part, by a classifier trained on its other side."""
        classify = self._tuned(arm, part) if arm.finetune else self._on_frozen(arm, part)
        for row in self.rows:
            if row.case in part.test:
                bag = read_bag(self._store(arm, part) / f"{row.slide}.h5")
                with torch.inference_mode():
                    p = torch.softmax(classify(bag).double(), dim=-1).numpy()
                yield SlideTiles(part, row.case, row.slide, row.label, p)

    def _tuned(self, arm: Arm, part: Part) -> Callable[[Bag], torch.Tensor]:
        """Fine-tune on the part's training cases, embed its test cases."""
        folder = self._folder(arm, part) / "tuned"
        label_of = {row.slide: row.label for row in self.rows}
        train = [LabelledSlide(j, label_of[j.slide]) for j in self.jobs if j.case in part.train]
        card = finetune(
            train,
            self._recipe(arm, part),
            self.protocol.settings_of("finetune"),
            folder,
            ranks=self.ranks,
            workers=self.workers,
            progress=self.progress,
        )
        leaked = matching(part.test, card["trained_on"])
        if leaked and arm.test != "tiles":
            raise LeakageError(
                f"{arm.name}: the weights or the stain have seen {', '.join(leaked[:3])}, which would be "
                "tested. Start from those of other cases."
            )
        recipe = replace(self._recipe(arm, part), weights=str(folder / WEIGHTS))
        self._embed(arm, part, recipe, [job for job in self.jobs if job.case in part.test])
        head = load_classifier(folder)[0].head
        return lambda bag: head(torch.from_numpy(np.asarray(bag.features, dtype=np.float32)))

    def _on_frozen(self, arm: Arm, part: Part) -> Callable[[Bag], torch.Tensor]:
        """Embed all cases once, train a tile classifier on the part's training cases."""
        self._embed(arm, part, self._recipe(arm, part), self.jobs)
        folder = self._folder(arm, part)
        path = folder / f"classifier-r{part.repeat}-f{part.index}.safetensors"
        cohort = assemble(self.rows, self._store(arm, part, trained_on=True))
        tested = part.test if arm.test != "tiles" else ()
        fold = Fold(repeat=part.repeat, index=part.index, train=part.train, test=tested)
        check_seen(cohort, [fold])
        settings, seed = self.protocol.settings_of("fit"), self.protocol.settings_of("split").seed
        if not path.exists():
            cases, own_seed = cohort.named(part.train), fold_seed(seed, fold)
            save_fitted(path, fit(TILE_MODEL, cases, (), cohort.classes, settings, seed=own_seed))
        fitted = load_fitted(path)
        check_fit(cohort, TILE_MODEL, fold, settings, seed, fitted)

        def classify(bag: Bag) -> torch.Tensor:
            logits = run_head(fitted, bag).tile_logits
            assert logits is not None
            return logits[0]

        return classify

    def _embed(self, arm: Arm, part: Part, recipe: Recipe, jobs: Sequence[SlideJob]) -> None:
        """Make the bags of a part, and keep the time it took."""
        began = time.perf_counter()
        outcomes = extract(
            jobs,
            recipe,
            self._folder(arm, part) / "store",
            device=str(self.ranks.device),
            workers=self.workers,
            overwrite=True,  # bags of weights that an interrupted run with other data has left
            hold_out_tiles=self.protocol.hold_out_tiles if arm.test == "tiles" else 0,
            progress=self.progress,
        )
        for outcome in outcomes:
            if outcome.status in ("failed", "excluded"):
                raise FitError(outcome.reason)
        path = self._folder(arm, part) / "embedding.json"
        if not path.exists() or any(outcome.status == "done" for outcome in outcomes):
            told = {"seconds": time.perf_counter() - began}
            write_atomic(path, json.dumps(told))

    def _told(self, arm: Arm, part: Part) -> dict[str, float]:
        """How long embedding took; once for all parts of a frozen arm."""
        told: dict[str, float] = json.loads(
            (self._folder(arm, part) / "embedding.json").read_text()
        )
        first = part.index == part.repeat == 0
        return told if arm.finetune or first else {"seconds": 0.0}

    def _recipe(self, arm: Arm, part: Part) -> Recipe:
        if not arm.start:
            return self.protocol.recipe_of(arm)
        start = next(other for other in self.protocol.arms if other.name == arm.start)
        weights = str(self._folder(start, part) / "tuned" / WEIGHTS)
        return self.protocol.recipe_of(arm, weights=weights)

    def _folder(self, arm: Arm, part: Part) -> Path:
        """Of what an arm makes: with each part its own network where one is trained."""
        folder = self.out / "arms" / "".join(c if c.isalnum() else "-" for c in arm.name)
        return folder / f"r{part.repeat}-f{part.index}" if arm.finetune else folder

    def _store(self, arm: Arm, part: Part, *, trained_on: bool = False) -> Path:
        """The bags a part is tested on, or those a frozen arm's classifier learns from."""
        made = store_specs(
            [self._recipe(arm, part)],
            self._folder(arm, part) / "store",
            hold_out_tiles=self.protocol.hold_out_tiles if arm.test == "tiles" else 0,
        )
        return made[0 if trained_on else -1].store.path


def summed_up(
    arm: Arm, tested: Sequence[SlideTiles], classes: Sequence[str], seconds: float
) -> ArmResult:
    """Measures over tiles, as the mean of the parts, and over cases."""
    by_part: dict[tuple[int, int], list[SlideTiles]] = {}
    for tiles in tested:
        by_part.setdefault((tiles.part.repeat, tiles.part.index), []).append(tiles)
    over_tiles = np.mean([_tile_measures(held, classes) for held in by_part.values()], axis=0)
    measures: dict[str, float | None] = dict(
        zip(("accuracy", "precision", "recall"), map(float, over_tiles), strict=True)
    )
    intervals, predictions = {}, None
    if arm.test != "tiles":  # cases that have trained are no evidence about cases
        predictions = slide_predictions(arm.name, tested, classes)
        [result] = evaluate(predictions).models
        for name, found in (
            ("case_accuracy", result.metrics["accuracy"]),
            ("case_auc", result.metrics["auc"]),
        ):
            measures[name] = found.value
            if found.low is not None and found.high is not None:
                intervals[name] = (found.low, found.high)
    return ArmResult(
        arm=arm,
        measures=measures,
        intervals=intervals,
        predictions=predictions,
        n_tiles=sum(len(tiles.p) for tiles in tested),
        n_cases=len({tiles.case for tiles in tested}),
        seconds=seconds,
    )


def slide_predictions(
    model: str, tested: Sequence[SlideTiles], classes: Sequence[str]
) -> Predictions:
    """One row per slide: the mean probabilities of its tiles."""
    rows = []
    for tiles in tested:
        given = (model, tiles.part.repeat, tiles.part.index, tiles.case, tiles.slide, tiles.label)
        p = {PREFIX + name: v for name, v in zip(classes, tiles.p.mean(axis=0), strict=True)}
        rows.append(dict(zip(COLUMNS, given, strict=True)) | p)
    columns = [*COLUMNS, *(PREFIX + name for name in classes)]
    return Predictions(pd.DataFrame(rows, columns=columns), tuple(classes))


def _tile_measures(
    held: Sequence[SlideTiles], classes: Sequence[str]
) -> tuple[float, float, float]:
    """Accuracy, and macro precision and recall, over all tiles of a part; 0 for a class never called."""
    truth = np.concatenate(
        [np.full(len(tiles.p), list(classes).index(tiles.label)) for tiles in held]
    )
    called = np.concatenate([tiles.p.argmax(axis=1) for tiles in held])
    precision, recall, _, _ = precision_recall_fscore_support(
        truth, called, labels=sorted(set(truth)), average="macro", zero_division=0
    )
    return float(np.mean(truth == called)), float(precision), float(recall)


def _external(rows: Sequence[Row]) -> Part:
    """Trained on the cases that are learnt from, tested on those that the table keeps aside.

    Raises:
        CohortError: the table does not say which are which.
        ProtocolError: no case is left to test, or none of a class to train on.
    """
    rest, held = split_train_test(rows)
    absent = {row.label for row in rows} - {row.label for row in rest}
    if not held:
        raise ProtocolError(
            "The study tests on cases of other hospitals, and the table marks none: write test in a column "
            "split in their rows."
        )
    if absent:
        raise ProtocolError(
            f"Column split leaves no case of {', '.join(sorted(absent))} to train on. Mend the column."
        )
    train, test = (tuple(sorted({row.case for row in side})) for side in (rest, held))
    return Part(0, train, test)


def together(results: Sequence[ArmResult]) -> Predictions | None:
    """One table of all arms that judge cases, each a model; None where none does."""
    held = [result.predictions for result in results if result.predictions is not None]
    if not held:
        return None
    return Predictions(pd.concat([each.table for each in held], ignore_index=True), held[0].classes)
