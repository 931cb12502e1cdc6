"""A study repeated on one's own cohort: predictions of each arm, and the measures over them."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from features.bags.bag import Bag, read_bag
from features.bags.join import JoinBy, join
from features.extraction.extract import extract
from features.extraction.jobs import SlideJob
from features.extraction.outputs import store_specs
from features.files.atomic import write_atomic
from features.files.parse import parse_json
from features.progress import Progress
from features.recipe import SEGMENTED, Recipe
from mil.data.case import Row
from mil.data.cohort import assemble
from mil.data.names import matching
from mil.data.splits import Fold, split_cases
from mil.data.table import split_train_test
from mil.errors import FitError, LeakageError, ProtocolError
from mil.finetune.distributed import Ranks
from mil.finetune.files import WEIGHTS, load_classifier
from mil.finetune.frozen import remove_frozen
from mil.finetune.tiles import LabelledSlide
from mil.finetune.training import FROZEN, finetune
from mil.learning.crossval import check_fit, check_seen, fold_seed
from mil.learning.fitted import load_model, run_head, save_model
from mil.learning.reserved import check_reserved, check_reserved_inputs
from mil.learning.training import fit_model
from mil.protocols.arm import Arm
from mil.protocols.films import Films
from mil.protocols.measures import ArmResult, Split, TilePredictions, summarise_arm
from mil.protocols.protocol import Protocol
from mil.protocols.questions import LabelCount, check_labels, count_labels, rows_by_question
from mil.protocols.segmentation import SegmentationArm

TILE_MODEL = (
    "tile-vote"  # the classifier of frozen arms: two fully connected layers on single tiles
)


@dataclass(frozen=True, kw_only=True)
class Rerun:
    """A protocol and a cohort to run it on.

    Attributes:
        protocol: what to do.
        rows: of the table, each with a label.
        jobs: the same slides; none where the rows are volumes.
        out: folder for weights, bags and fits; those of an interrupted run are used again.
        ranks: the device and the threads to compute with.
        progress: is advanced by each slide, step and tile.
        films: of the volumes; None for slides.
    """

    protocol: Protocol
    rows: Sequence[Row]
    jobs: Sequence[SlideJob]
    out: Path
    ranks: Ranks
    progress: Progress
    films: Films | None = None
    _segmented: dict[str, SegmentationArm] = field(default_factory=dict, repr=False)

    def rows_of(self, arm: Arm) -> tuple[Row, ...]:
        """The rows that an arm may read, labelled by its question; with split=test only where tested on."""
        rows = self._readable(arm)
        if not arm.question:
            return rows
        return rows_by_question(arm.question, self.protocol.questions[arm.question], rows)

    def labels(self) -> dict[str, tuple[LabelCount, ...]]:
        """What the question of each arm makes of the labels of the rows that its arms read.

        Raises:
            ProtocolError: a label is not named, but resembles one that is.
        """
        counts = {}
        for arm in self.protocol.arms:
            if arm.question:
                question, rows = self.protocol.questions[arm.question], self._readable(arm)
                check_labels(arm.question, question, rows)
                counts[arm.question] = count_labels(question, rows)
        return counts

    def _readable(self, arm: Arm) -> tuple[Row, ...]:
        on_test = arm.test in ("external", "ensemble")
        return tuple(self.rows if on_test else split_train_test(self.rows)[0])

    def jobs_of(self, arm: Arm, channels: tuple[str, ...] | None = None) -> tuple[SlideJob, ...]:
        """The slides of the same rows, or the films of these modalities; by default the arm's."""
        slides, jobs = {row.slide for row in self.rows_of(arm)}, tuple(self.jobs)
        if self.films and arm.shows:
            jobs = self.films.jobs(self.protocol.volumes_of(channels or arm.shows[0]))
        return tuple(job for job in jobs if job.slide in slides)

    def classes(self, arm: Arm) -> tuple[str, ...]:
        """The labels, sorted."""
        return tuple(sorted({row.label for row in self.rows_of(arm)}))

    def lay_out_films(self) -> None:
        """Read every series that an arm needs: one that fails is named before anything is trained.

        Raises:
            FitError: naming all that cannot be used with some modalities.
        """
        if self.films:
            slides: dict[tuple[str, ...], set[str]] = {}
            for arm in self.protocol.arms:
                for channels in arm.shows:
                    slides.setdefault(channels, set()).update(r.slide for r in self.rows_of(arm))
            recipes = [
                (self.protocol.volumes_of(channels), names) for channels, names in slides.items()
            ]
            for recipe, names in recipes:
                self.films.check_modalities(recipe, names)
            for recipe, names in recipes:
                self.films.lay_out(recipe, names)

    def results(self) -> Iterator[ArmResult]:
        """Run the arms one after another.

        Raises:
            ProtocolError: the cohort cannot carry the protocol.
            LeakageError: weights have seen a case that would be tested.
            FitError: a slide cannot be used, or a training failed.
        """
        self.lay_out_films()
        for arm in self.protocol.arms:
            if arm.segments:
                yield self._segmentation(arm).judge(self.protocol.settings_of("split"))
                continue
            splits = self.splits(arm)
            if not arm.finetune:
                self._fill_stores(arm)
            tested = [tiles for split in splits for tiles in self._predict_tiles(arm, split)]
            remove_frozen(self._arm_folder(arm) / FROZEN)
            seconds = sum(self._embedding_seconds(arm, split) for split in splits)
            positive = next(iter(self.protocol.questions.get(arm.question, ())), "")
            yield summarise_arm(arm, tested, self.classes(arm), seconds, positive=positive)

    def splits(self, arm: Arm) -> tuple[Split, ...]:
        """Training and test cases of an arm."""
        if arm.segments:
            return ()
        cases = {row.case: row for row in sorted(self.rows_of(arm), key=lambda row: row.case)}
        if arm.test == "tiles":
            return (Split(0, tuple(cases), tuple(cases)),)
        if arm.test == "external":
            return (_external_split(self.rows_of(arm)),)
        test: tuple[str, ...] = ()
        if arm.test == "ensemble":
            external = _external_split(self.rows_of(arm))
            cases, test = {case: cases[case] for case in external.train}, external.test
        folds = split_cases(
            list(cases),
            [row.label for row in cases.values()],
            [row.site for row in cases.values()],
            self.protocol.settings_of("split"),
        )
        return tuple(
            Split(fold.index, fold.train, test or fold.test, fold.repeat) for fold in folds
        )

    def _predict_tiles(self, arm: Arm, split: Split) -> Iterator[TilePredictions]:
        """Predict the test cases with a classifier trained on the training cases."""
        train = self._finetuned_classifier if arm.finetune else self._frozen_classifier
        classify = train(arm, split)
        for row in self.rows_of(arm):
            if row.case in split.test:
                bag = read_bag(self._store(arm, split) / f"{row.slide}.h5")
                with torch.inference_mode():
                    logits = classify(bag).double().numpy()
                yield TilePredictions(split, row.case, row.slide, row.label, logits, len(bag))

    def _finetuned_classifier(self, arm: Arm, split: Split) -> Callable[[Bag], torch.Tensor]:
        """Fine-tune on the split's training cases, embed its test cases."""
        if arm.test not in ("external", "ensemble"):
            check_reserved_inputs(self._recipe(arm, split), split_train_test(self.rows)[1])
        folder = self._folder(arm, split) / "tuned"
        label_of = {row.slide: row.label for row in self.rows_of(arm)}
        jobs = self.jobs_of(arm)
        train = [LabelledSlide(j, label_of[j.slide]) for j in jobs if j.case in split.train]
        card = finetune(
            train,
            self._recipe(arm, split),
            self.protocol.settings_of("finetune"),
            folder,
            ranks=self.ranks,
            progress=self.progress,
            frozen=self._arm_folder(arm) / FROZEN,
        )
        leaked = matching(split.test, card["trained_on"])
        if leaked and arm.test != "tiles":
            raise LeakageError(
                f"{arm.name}: the weights or the stain have seen {', '.join(leaked[:3])}, which would be "
                "tested. Start from those of other cases."
            )
        recipe = replace(self._recipe(arm, split), weights=str(folder / WEIGHTS))
        tested = [job for job in jobs if job.case in split.test]
        self._embed(arm, recipe, self._folder(arm, split) / "store", tested)
        head = load_classifier(folder)[0].head
        return lambda bag: head(torch.from_numpy(np.asarray(bag.features, dtype=np.float32)))

    def _frozen_classifier(self, arm: Arm, split: Split) -> Callable[[Bag], torch.Tensor]:
        """Train the arm's model on the split's training cases, whose bags are made."""
        path = self._folder(arm, split) / f"classifier-r{split.repeat}-f{split.index}.safetensors"
        if arm.region == SEGMENTED:
            self._segmentation(arm).select(split, self._frozen_stores(arm)[0][1], self.rows_of(arm))
        cohort = assemble(
            self.rows_of(arm),
            self._store(arm, split, trained_on=True),
            allow_missing=None,
            allow_duplicates=None,
        )
        model = arm.model or TILE_MODEL
        if arm.test not in ("external", "ensemble"):
            check_reserved(replace(cohort, reserved=split_train_test(self.rows)[1]))
        tested = split.test if arm.test != "tiles" else ()
        fold = Fold(repeat=split.repeat, index=split.index, train=split.train, test=tested)
        check_seen(cohort, [fold])
        settings, seed = self.protocol.settings_of("fit"), self.protocol.settings_of("split").seed
        if not path.exists():
            cases, own_seed = cohort.named(split.train), fold_seed(seed, fold)
            save_model(path, fit_model(model, cases, (), cohort.classes, settings, seed=own_seed))
        fitted = load_model(path)
        check_fit(cohort, model, fold, settings, seed, fitted)

        def classify(bag: Bag) -> torch.Tensor:
            output = run_head(fitted, bag)
            if arm.model:
                return output.logits
            assert output.tile_logits is not None
            return output.tile_logits[0]

        return classify

    def _fill_stores(self, arm: Arm) -> None:
        """Make the bags of a frozen arm that no arm before it has made, and join its scales."""
        stores = self._frozen_stores(arm)
        for (recipe, store), channels in zip(
            stores, arm.shows or [None] * len(stores), strict=True
        ):
            jobs = self.jobs_of(arm, channels)
            if arm.region:  # of tissue
                jobs = tuple(replace(job, annotations=None) for job in jobs)
            self._embed(arm, recipe, store, jobs)
        if arm.scales or arm.parts:
            by: JoinBy = "tile" if arm.scales else "case"
            stores_only = [store for _, store in stores]
            joined = join(stores_only, self._joined(arm), by=by, overwrite=True)
            if joined.failures:
                raise FitError(joined.failures[0])

    def _embed(self, arm: Arm, recipe: Recipe, store: Path, jobs: Sequence[SlideJob]) -> None:
        """Fill a store, and note how long it took."""
        began = time.perf_counter()
        outcomes = extract(
            jobs,
            recipe,
            store,
            device=str(self.ranks.device),
            workers=self.ranks.workers,
            overwrite=True,  # bags of weights that an interrupted run with other data has left
            hold_out_tiles=self.protocol.hold_out_tiles if arm.test == "tiles" else 0,
            progress=self.progress,
        )
        for outcome in outcomes:
            if outcome.status in ("failed", "excluded"):
                raise FitError(outcome.reason)
        path = _seconds_file(store)
        if not path.exists() or any(outcome.status == "done" for outcome in outcomes):
            write_atomic(path, json.dumps({"seconds": time.perf_counter() - began}))

    def _embedding_seconds(self, arm: Arm, split: Split) -> float:
        """Seconds that embedding took; once for all splits of a frozen arm, which share their bags."""
        stores = [self._folder(arm, split) / "store"]
        if not arm.finetune:
            first = (split.index, split.repeat) == (0, 0)
            stores = [store for _, store in self._frozen_stores(arm)] if first else []
        return sum(
            float(parse_json(_seconds_file(s).read_text(encoding="utf-8"))["seconds"])
            for s in stores
        )

    def _recipe(self, arm: Arm, split: Split) -> Recipe:
        if not arm.start:
            return self.protocol.recipe_of(arm)
        start = next(other for other in self.protocol.arms if other.name == arm.start)
        weights = str(self._folder(start, split) / "tuned" / WEIGHTS)
        return self.protocol.recipe_of(arm, weights=weights)

    def _folder(self, arm: Arm, split: Split) -> Path:
        """The folder of an arm, or of one split of it where each split trains a network of its own."""
        folder = self._arm_folder(arm)
        return folder / f"r{split.repeat}-f{split.index}" if arm.finetune else folder

    def _arm_folder(self, arm: Arm) -> Path:
        return self.out / "arms" / "".join(c if c.isalnum() else "-" for c in arm.name)

    def _frozen_stores(self, arm: Arm) -> list[tuple[Recipe, Path]]:
        """Each scale of a frozen arm, and its store: that of the first arm with such bags."""
        stores = []
        for recipe, channels in self._sources(arm):
            owner = next(
                other
                for other in self.protocol.arms
                if not (other.finetune or other.segments)
                and bool(other.region) == bool(arm.region)
                and (other.test == "tiles") == (arm.test == "tiles")
                and (recipe, channels) in self._sources(other)
            )
            store = self._arm_folder(owner) / "store"
            if owner.scales:
                store /= f"mpp-{recipe.mpp:g}"
            elif owner.parts:
                store /= "+".join(channels)
            stores.append((recipe, store))
        return stores

    def _sources(self, arm: Arm) -> list[tuple[Recipe, tuple[str, ...]]]:
        """The recipe and the modalities of each of an arm's stores."""
        if arm.shows:
            return [(self.protocol.recipe_of(arm), channels) for channels in arm.shows]
        return [(recipe, ()) for recipe in self.protocol.recipes_of(arm)]

    def _segmentation(self, arm: Arm) -> SegmentationArm:
        """What an arm segments, made once."""
        if arm.name not in self._segmented:
            own = {"backbone": arm.backbone} if arm.segments else {}
            self._segmented[arm.name] = SegmentationArm(
                arm=arm,
                settings=self.protocol.settings_of("segment", kind=arm.segmenter, **own),
                rows=self.rows_of(arm),
                jobs=self.jobs_of(arm),
                folder=self._arm_folder(arm),
                maps=self.out / "arms" / "maps",
                progress=self.progress,
            )
        return self._segmented[arm.name]

    def _joined(self, arm: Arm) -> Path:
        return self._arm_folder(arm) / "joined"

    def _store(self, arm: Arm, split: Split, *, trained_on: bool = False) -> Path:
        """The bags a split is tested on, or those a frozen arm's classifier learns from."""
        if arm.scales or arm.parts:
            return self._joined(arm)
        if arm.region == SEGMENTED:
            return self._segmentation(arm).store(split)
        recipe, store = self._recipe(arm, split), self._folder(arm, split) / "store"
        if not arm.finetune:
            [(recipe, store)] = self._frozen_stores(arm)
        made = store_specs(
            [recipe],
            store,
            hold_out_tiles=self.protocol.hold_out_tiles if arm.test == "tiles" else 0,
        )
        return made[0 if trained_on else -1].store.path


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
            f"Column split leaves no case of {', '.join(sorted(absent))} to train on. Correct the column."
        )
    train, test = (tuple(sorted({row.case for row in side})) for side in (train_rows, test_rows))
    return Split(0, train, test)


def _seconds_file(store: Path) -> Path:
    """Where it is noted how long the bags of a store took."""
    return store.with_name(f"{store.name}.json")
