"""A study repeated on one's own cohort: tile predictions of each arm, and the measures over them."""

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
from features.extraction.jobs import SlideJob
from features.extraction.outputs import store_specs
from features.files.atomic import write_atomic
from features.files.parse import parse_json
from features.progress import Progress
from features.recipe import Recipe
from mil.data.case import Row
from mil.data.cohort import assemble
from mil.data.names import matching
from mil.data.splits import Fold, split_cases
from mil.data.table import split_train_test
from mil.errors import FitError, LeakageError, ProtocolError
from mil.evaluation.classification.evaluate import evaluate
from mil.evaluation.classification.predictions import COLUMNS, PREFIX, ClassPredictions
from mil.finetune.distributed import Ranks
from mil.finetune.files import WEIGHTS, load_classifier
from mil.finetune.tiles import LabelledSlide
from mil.finetune.training import finetune
from mil.learning.crossval import check_fit, check_seen, fold_seed
from mil.learning.fitted import load_model, run_head, save_model
from mil.learning.training import fit_model
from mil.protocols.protocol import Arm, Protocol

TILE_MODEL = (
    "tile-vote"  # the classifier of frozen arms: two fully connected layers on single tiles
)


@dataclass(frozen=True)
class Split:
    """Training and test cases; in an arm that is tested on other tiles they are the same cases."""

    index: int
    train: tuple[str, ...]
    test: tuple[str, ...]
    repeat: int = 0


@dataclass(frozen=True, eq=False)
class TilePredictions:
    """The class probabilities of one tested slide's tiles, (N, C)."""

    split: Split
    case: str
    slide: str
    label: str
    p: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class ArmResult:
    """The result of one arm on this cohort.

    Attributes:
        arm: the arm.
        measures: as named in ``MEASURES``; over tiles the mean of the splits. None where undefined.
        intervals: 95 % limits of the measures over cases.
        predictions: mean probabilities of each slide; None where the tested cases were trained on.
        n_tiles, n_cases: number of tested tiles and cases.
        seconds: time to embed the tested tiles.
    """

    arm: Arm
    measures: Mapping[str, float | None]
    intervals: Mapping[str, tuple[float, float]]
    predictions: ClassPredictions | None
    n_tiles: int
    n_cases: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Rerun:
    """A protocol and a cohort to run it on.

    Attributes:
        protocol: what to do.
        rows: of the table, each with a label.
        jobs: the same slides.
        out: folder for weights, bags and fits; those of an interrupted run are used again.
        ranks, workers: the device and the threads to compute with.
        progress: is advanced by each slide, step and tile.
    """

    protocol: Protocol
    rows: Sequence[Row]
    jobs: Sequence[SlideJob]
    out: Path
    ranks: Ranks
    workers: int
    progress: Progress

    def rows_of(self, arm: Arm) -> tuple[Row, ...]:
        """The rows that an arm may read: those with split=test only if it is tested on them."""
        return tuple(self.rows) if arm.test == "external" else split_train_test(self.rows)[0]

    def jobs_of(self, arm: Arm) -> tuple[SlideJob, ...]:
        """The slides of the same rows."""
        slides = {row.slide for row in self.rows_of(arm)}
        return tuple(job for job in self.jobs if job.slide in slides)

    def classes(self, arm: Arm) -> tuple[str, ...]:
        """The labels, sorted."""
        return tuple(sorted({row.label for row in self.rows_of(arm)}))

    def results(self) -> Iterator[ArmResult]:
        """Run the arms one after another.

        Raises:
            ProtocolError: the cohort cannot carry the protocol.
            LeakageError: weights have seen a case that would be tested.
            FitError: a slide cannot be used, or a training failed.
        """
        for arm in self.protocol.arms:
            splits = self.splits(arm)
            tested = [tiles for split in splits for tiles in self._predict_tiles(arm, split)]
            seconds = sum(self._embedding_seconds(arm, split) for split in splits)
            yield summarise_arm(arm, tested, self.classes(arm), seconds)

    def splits(self, arm: Arm) -> tuple[Split, ...]:
        """Training and test cases of an arm."""
        cases = {row.case: row for row in sorted(self.rows_of(arm), key=lambda row: row.case)}
        if arm.test == "tiles":
            return (Split(0, tuple(cases), tuple(cases)),)
        if arm.test == "external":
            return (_external_split(self.rows),)
        folds = split_cases(
            list(cases),
            [row.label for row in cases.values()],
            [row.site for row in cases.values()],
            self.protocol.settings_of("split"),
        )
        return tuple(Split(fold.index, fold.train, fold.test, fold.repeat) for fold in folds)

    def _predict_tiles(self, arm: Arm, split: Split) -> Iterator[TilePredictions]:
        """Predict the tiles of the test cases with a classifier trained on the training cases."""
        train = self._finetuned_classifier if arm.finetune else self._frozen_classifier
        classify = train(arm, split)
        for row in self.rows_of(arm):
            if row.case in split.test:
                bag = read_bag(self._store(arm, split) / f"{row.slide}.h5")
                with torch.inference_mode():
                    p = torch.softmax(classify(bag).double(), dim=-1).numpy()
                yield TilePredictions(split, row.case, row.slide, row.label, p)

    def _finetuned_classifier(self, arm: Arm, split: Split) -> Callable[[Bag], torch.Tensor]:
        """Fine-tune on the split's training cases, embed its test cases."""
        folder = self._folder(arm, split) / "tuned"
        label_of = {row.slide: row.label for row in self.rows}
        jobs = self.jobs_of(arm)
        train = [LabelledSlide(j, label_of[j.slide]) for j in jobs if j.case in split.train]
        card = finetune(
            train,
            self._recipe(arm, split),
            self.protocol.settings_of("finetune"),
            folder,
            ranks=self.ranks,
            workers=self.workers,
            progress=self.progress,
        )
        leaked = matching(split.test, card["trained_on"])
        if leaked and arm.test != "tiles":
            raise LeakageError(
                f"{arm.name}: the weights or the stain have seen {', '.join(leaked[:3])}, which would be "
                "tested. Start from those of other cases."
            )
        recipe = replace(self._recipe(arm, split), weights=str(folder / WEIGHTS))
        self._embed(arm, split, recipe, [job for job in jobs if job.case in split.test])
        head = load_classifier(folder)[0].head
        return lambda bag: head(torch.from_numpy(np.asarray(bag.features, dtype=np.float32)))

    def _frozen_classifier(self, arm: Arm, split: Split) -> Callable[[Bag], torch.Tensor]:
        """Embed all cases once, train a tile classifier on the split's training cases."""
        self._embed(arm, split, self._recipe(arm, split), self.jobs_of(arm))
        folder = self._folder(arm, split)
        path = folder / f"classifier-r{split.repeat}-f{split.index}.safetensors"
        cohort = assemble(self.rows_of(arm), self._store(arm, split, trained_on=True))
        tested = split.test if arm.test != "tiles" else ()
        fold = Fold(repeat=split.repeat, index=split.index, train=split.train, test=tested)
        check_seen(cohort, [fold])
        settings, seed = self.protocol.settings_of("fit"), self.protocol.settings_of("split").seed
        if not path.exists():
            cases, own_seed = cohort.named(split.train), fold_seed(seed, fold)
            save_model(
                path, fit_model(TILE_MODEL, cases, (), cohort.classes, settings, seed=own_seed)
            )
        fitted = load_model(path)
        check_fit(cohort, TILE_MODEL, fold, settings, seed, fitted)

        def classify(bag: Bag) -> torch.Tensor:
            logits = run_head(fitted, bag).tile_logits
            assert logits is not None
            return logits[0]

        return classify

    def _embed(self, arm: Arm, split: Split, recipe: Recipe, jobs: Sequence[SlideJob]) -> None:
        """Make the bags of a split, and note how long it took."""
        began = time.perf_counter()
        outcomes = extract(
            jobs,
            recipe,
            self._folder(arm, split) / "store",
            device=str(self.ranks.device),
            workers=self.workers,
            overwrite=True,  # bags of weights that an interrupted run with other data has left
            hold_out_tiles=self.protocol.hold_out_tiles if arm.test == "tiles" else 0,
            progress=self.progress,
        )
        for outcome in outcomes:
            if outcome.status in ("failed", "excluded"):
                raise FitError(outcome.reason)
        path = self._folder(arm, split) / "embedding.json"
        if not path.exists() or any(outcome.status == "done" for outcome in outcomes):
            write_atomic(path, json.dumps({"seconds": time.perf_counter() - began}))

    def _embedding_seconds(self, arm: Arm, split: Split) -> float:
        """Seconds that embedding took; once for all splits of a frozen arm, which share their bags."""
        if not arm.finetune and (split.index, split.repeat) != (0, 0):
            return 0.0
        return float(
            parse_json((self._folder(arm, split) / "embedding.json").read_text())["seconds"]
        )

    def _recipe(self, arm: Arm, split: Split) -> Recipe:
        if not arm.start:
            return self.protocol.recipe_of(arm)
        start = next(other for other in self.protocol.arms if other.name == arm.start)
        weights = str(self._folder(start, split) / "tuned" / WEIGHTS)
        return self.protocol.recipe_of(arm, weights=weights)

    def _folder(self, arm: Arm, split: Split) -> Path:
        """The folder of an arm, or of one split of it where each split trains a network of its own."""
        folder = self.out / "arms" / "".join(c if c.isalnum() else "-" for c in arm.name)
        return folder / f"r{split.repeat}-f{split.index}" if arm.finetune else folder

    def _store(self, arm: Arm, split: Split, *, trained_on: bool = False) -> Path:
        """The bags a split is tested on, or those a frozen arm's classifier learns from."""
        made = store_specs(
            [self._recipe(arm, split)],
            self._folder(arm, split) / "store",
            hold_out_tiles=self.protocol.hold_out_tiles if arm.test == "tiles" else 0,
        )
        return made[0 if trained_on else -1].store.path


def summarise_arm(
    arm: Arm, tested: Sequence[TilePredictions], classes: Sequence[str], seconds: float
) -> ArmResult:
    """Measures over tiles, as the mean of the splits, and over cases."""
    by_split: dict[tuple[int, int], list[TilePredictions]] = {}
    for tiles in tested:
        by_split.setdefault((tiles.split.repeat, tiles.split.index), []).append(tiles)
    over_tiles = np.mean([_tile_measures(tiles, classes) for tiles in by_split.values()], axis=0)
    measures: dict[str, float | None] = dict(
        zip(("accuracy", "precision", "recall"), map(float, over_tiles), strict=True)
    )
    intervals, predictions = {}, None
    if arm.test != "tiles":  # cases that have trained are no evidence about cases
        predictions = slide_predictions(arm.name, tested, classes)
        [result] = evaluate(predictions).models
        for name, metric in (("case_accuracy", "accuracy"), ("case_auc", "auc")):
            estimate = result.metrics[metric]
            measures[name] = estimate.value
            if estimate.low is not None and estimate.high is not None:
                intervals[name] = (estimate.low, estimate.high)
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
    model: str, tested: Sequence[TilePredictions], classes: Sequence[str]
) -> ClassPredictions:
    """One row per slide: the mean probabilities of its tiles."""
    rows = []
    for tiles in tested:
        facts = (model, tiles.split.repeat, tiles.split.index, tiles.case, tiles.slide, tiles.label)
        p = {PREFIX + name: v for name, v in zip(classes, tiles.p.mean(axis=0), strict=True)}
        rows.append(dict(zip(COLUMNS, facts, strict=True)) | p)
    columns = [*COLUMNS, *(PREFIX + name for name in classes)]
    return ClassPredictions(pd.DataFrame(rows, columns=columns), tuple(classes))


def _tile_measures(
    slides: Sequence[TilePredictions], classes: Sequence[str]
) -> tuple[float, float, float]:
    """Accuracy, and macro precision and recall, over all tiles of a split; 0 for a class never called."""
    truth = np.concatenate(
        [np.full(len(tiles.p), list(classes).index(tiles.label)) for tiles in slides]
    )
    called = np.concatenate([tiles.p.argmax(axis=1) for tiles in slides])
    precision, recall, _, _ = precision_recall_fscore_support(
        truth, called, labels=sorted(set(truth)), average="macro", zero_division=0
    )
    return float(np.mean(truth == called)), float(precision), float(recall)


def _external_split(rows: Sequence[Row]) -> Split:
    """Train on the cases for training, test on those that column split marks for testing.

    Raises:
        CohortError: the column cannot be read.
        ProtocolError: no case is left to test, or none of a class to train on.
    """
    train_rows, test_rows = split_train_test(rows)
    absent = {row.label for row in rows} - {row.label for row in train_rows}
    if not test_rows:
        raise ProtocolError(
            "The study tests on cases of other hospitals, and the table marks none. Write test into the rows "
            "of such cases, in a column split."
        )
    if absent:
        raise ProtocolError(
            f"Column split leaves no case of {', '.join(sorted(absent))} to train on. Mend the column."
        )
    train, test = (tuple(sorted({row.case for row in side})) for side in (train_rows, test_rows))
    return Split(0, train, test)


def join_predictions(results: Sequence[ArmResult]) -> ClassPredictions | None:
    """One table of all arms that judge cases, each a model; None where none does."""
    tables = [result.predictions for result in results if result.predictions is not None]
    if not tables:
        return None
    table = pd.concat([predictions.table for predictions in tables], ignore_index=True)
    return ClassPredictions(table, tables[0].classes)
