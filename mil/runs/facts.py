"""What run.json says of a run, under typed names."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from features.choices import suggest
from features.files.parse import parse_json
from features.recipe import has_random_weights
from features.summary import listed
from mil.data.splits import Fold
from mil.errors import RunError
from mil.runs import files
from mil.runs.settings import RunSettings
from mil.tasks.task import Task


@dataclass(frozen=True)
class RunFacts:
    """What run.json of a run folder says, and whether its results are as the run wrote them.

    Attributes:
        path: the folder.
        info: the content of run.json.
        moved: where ``store`` and ``cohort`` lie now, if they have moved since.
    """

    path: Path
    info: Mapping[str, Any] = field(repr=False)
    moved: Mapping[str, Path] = field(default_factory=dict, repr=False)

    # What was done.

    @property
    def command(self) -> str:
        """The command that made the run: ``crossval``, ``train``, ``finetune`` or ``protocol``."""
        return str(self.info["command"])

    @property
    def settings(self) -> RunSettings:
        """The resolved settings; running from them repeats the run."""
        return RunSettings(self.info["settings"])

    @property
    def task(self) -> Task:
        """What was asked of a case."""
        return self.settings.task

    @property
    def complete(self) -> bool:
        """Whether the run came to its end."""
        return bool(self.info.get("complete"))

    @property
    def cross_validated(self) -> bool:
        """Whether this is a cross-validation; else its models were trained on all cases."""
        return self.command == "crossval"

    @property
    def title(self) -> str:
        """The folder's name behind that of the folder it is in."""
        return "/".join(self.path.absolute().parts[-2:])

    @property
    def finished(self) -> str:
        """Date and time of the end, in UTC."""
        return str(self.info["finished"]).replace("T", " ").replace("+00:00", " UTC")

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the libraries that the numbers depend on."""
        versions: Mapping[str, str] = self.info["versions"]
        return versions

    @property
    def predictions_sha256(self) -> str:
        """Fingerprint of the predictions, by which a cross-validation is known again."""
        return str(self.info["results"][files.PREDICTIONS])

    @property
    def finetuning(self) -> Mapping[str, Any]:
        """The settings by which each fold fine-tuned its backbone; empty without."""
        settings: Mapping[str, Any] = self.info.get("tuning", {})
        return settings

    @property
    def segmenting(self) -> Mapping[str, Any]:
        """The settings by which each fold segmented its slides; empty without."""
        settings: Mapping[str, Any] = self.info.get("segmenting", {})
        return settings

    # Cases, slides and bags.

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels, sorted."""
        return tuple(self.info.get("classes", ()))

    @property
    def labels(self) -> Mapping[str, str]:
        """The label of each case."""
        labels: Mapping[str, str] = self.info.get("labels", {})
        return labels

    @property
    def cases(self) -> Mapping[str, str]:
        """The case of each slide."""
        cases: Mapping[str, str] = self.info.get("cases", {})
        return cases

    @property
    def bags(self) -> Mapping[str, str]:
        """The fingerprint of each slide's bag."""
        bags: Mapping[str, str] = self.info.get("bags", {})
        return bags

    @property
    def recipe(self) -> Mapping[str, Any]:
        """How the bags were made."""
        recipe: Mapping[str, Any] = self.info.get("recipe", {})
        return recipe

    @property
    def random_backbone(self) -> bool:
        """Whether the backbone's weights were random."""
        return has_random_weights(self.recipe)

    def case_of(self, slide: str, case: str = "") -> str:
        """The case of a slide: that of the run's table, else ``case`` of its bag, else empty.

        The table goes first: cases may have been renamed since the extraction.
        """
        return self.cases.get(slide, "") or case

    def label_of(self, case: str) -> str:
        """The label of a case; empty where the run does not know it."""
        return str(self.labels.get(case, ""))

    # Results.

    def require_finished(self, *commands: str) -> None:
        """Refuse a run that is not finished, or whose results are not those it has written.

        Args:
            commands: that may have made it; ``crossval`` if not given.

        Raises:
            RunError: naming what is wrong.
        """
        kinds = {"crossval": "cross-validation", "train": "training"}
        commands = commands or ("crossval",)
        if self.command not in commands or not self.complete:
            kind = " or ".join(kinds.get(name, name) for name in commands)
            raise RunError(
                f"{self.path} is not a finished {kind}. Finish it first, or name the folder of one."
            )
        self.check_results()

    def check_results(self) -> None:
        """Refuse results that are not those the run has written; models are checked where they are read.

        Raises:
            RunError: naming the file.
        """
        for name in self.info.get("results", {}):
            if name in files.RESULTS:
                verified(self, self.path / name)

    def metrics_of(self, model: str) -> Mapping[str, Any] | None:
        """What metrics.json has of a model; None where the run has not measured it.

        Raises:
            RunError: the file is not as the run wrote it.
        """
        path = self.path / "metrics.json"
        if not path.is_file():
            return None
        results = parse_json(verified(self, path).read_text(encoding="utf-8"))["models"]
        return next((result for result in results if result["model"] == model), None)

    def trained_on(self, model: str, fold: Fold) -> tuple[str, ...] | None:
        """The cases that a fold's model was trained on; None where the run has not stored it."""
        card = self.model_path(model, fold).with_suffix(".json")
        if not card.is_file():
            return None
        return tuple(parse_json(card.read_text(encoding="utf-8"))["trained_on"])

    # Places of files.

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models that were fitted."""
        return self.settings.models

    def model_path(self, model: str, fold: Fold | None = None) -> Path:
        """The file of a model: that of a fold, or the one trained on all cases."""
        suffix = "" if fold is None else f"-{fold.name}"
        return self.path / "models" / f"{model}{suffix}.safetensors"

    def fold_store(self, fold: Fold) -> Path:
        """The folder of the bags that a fold has made by its own backbone or segmenter."""
        return self.path / "folds" / fold.name / "store"

    def fold_weights(self, fold: Fold) -> Path:
        """The file of the backbone that a fold has fine-tuned."""
        return self.path / "folds" / fold.name / "tuned" / "weights.safetensors"

    def fold_segmenter(self, fold: Fold) -> Path:
        """The file of the segmenter that a fold has trained."""
        return self.path / "folds" / fold.name / "segmenter.safetensors"


def start_notes(run: RunFacts) -> tuple[str, ...]:
    """What does not suit the cases in the weights that its heads started from."""
    return tuple(run.info.get("start_notes", ()))


def tissue_bags(run: RunFacts) -> Mapping[str, str]:
    """The fingerprint of each slide's bag of tissue, of a run that segmented in each fold."""
    bags: Mapping[str, str] = run.info.get("tissue_bags", {})
    return bags


def slide_hint(run: RunFacts, name: str) -> str:
    """Which slide a name may mean: one of the case of this name, or one of a similar name."""
    if own := sorted(slide for slide in run.bags if run.cases.get(slide) == name):
        slides = f"slide is {own[0]}" if len(own) == 1 else f"slides are {listed(own)}"
        return f" {name} is a case; its {slides}."
    return suggest(name, run.bags) or " Name one of its slides."


def verified(run: RunFacts, path: Path) -> Path:
    """A file of the run, as the run wrote it.

    Raises:
        RunError: it is not.
    """
    checksum = run.info.get("results", {}).get(path.relative_to(run.path).as_posix())
    if checksum and not (path.is_file() and files.sha256_of(path) == checksum):
        raise RunError(f"{path} is not as the run wrote it. Put it back, or make the run again.")
    return path


def last_place(run: RunFacts, name: str) -> Path | None:
    """Where the run last knew its ``cohort`` or ``store`` to lie; None where it has none."""
    place = run.moved.get(name) or run.settings.stored.get(name)
    return Path(place) if place else None


def nearby(run: RunFacts) -> Mapping[str, Path]:
    """Where the table and the store would lie if they had been moved together with the folder."""
    places: Mapping[str, str] = run.info.get("places", {})
    return {name: Path(os.path.normpath(run.path.absolute() / p)) for name, p in places.items()}
