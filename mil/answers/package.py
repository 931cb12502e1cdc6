"""A model packed for another machine: its fits, what they are worth, and what they learnt from.

package.json            format, model, reader, recipe and card; fingerprints of the other files
CARD.md                 the card, to be read
models/<n>.safetensors  one per fit; cases are named by fingerprints
reference.safetensors   facts of the training slides, and small grey pictures of their tissue
backbone.safetensors    the encoder, where its licence lets it be passed on
segmenter.safetensors   a segmenter of tumour, if one was given
segmenters/<n>.safetensors  one per fit, where each fold selects its tiles by its own
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.choices import unknown_problem
from features.errors import BackboneError
from features.files.atomic import write_atomic
from features.files.checksum import fingerprint
from features.files.parse import parse_json
from features.recipe import SEGMENTED, recipe_parts
from features.stored import check_version
from mil.answers.card import ModelCard, describe_segmenter
from mil.answers.masks import OTHER_SEGMENTER
from mil.answers.predictor import Fit, Predictor
from mil.answers.reading import reader_class
from mil.answers.run_predictor import predictor_of_run
from mil.data.reading import TableReading
from mil.errors import NotInRun, RunError
from mil.learning.fitted import load_model, save_model
from mil.likeness.hidden import Veil
from mil.likeness.reference import load_reference, save_reference
from mil.runs.files import sha256_of, write_json
from mil.runs.run import open_run
from mil.tasks.registry import task_class

if TYPE_CHECKING:
    from features.lowpower.segmenter import SegmenterCard

FORMAT, FORMAT_VERSION = "mil-package", 3
PACKAGE, CARD, REFERENCE = "package.json", "CARD.md", "reference.safetensors"
BACKBONE, SEGMENTER = "backbone.safetensors", "segmenter.safetensors"
OTHERS = (REFERENCE, BACKBONE, SEGMENTER, CARD)
OPEN_LICENCES = ("apache-2.0", "mit", "bsd", "cc0", "cc-by-4.0")  # that let weights be passed on


@dataclass(frozen=True)
class Package:
    """What was packed.

    Attributes:
        path: the folder.
        card: what it is, to be read.
        notes: what was left out, and why.
    """

    path: Path
    card: ModelCard
    notes: tuple[str, ...]


def is_package(path: Path) -> bool:
    """Whether a folder is a package."""
    return (path / PACKAGE).is_file()


def write_package(
    predictor: Predictor, card: ModelCard, out: Path, *, segmenter: Path | None = None
) -> Package:
    """Pack a model with all that is needed to answer for new slides on another machine.

    Args:
        predictor: the model.
        card: what it is.
        out: a new folder.
        segmenter: the file of a segmenter that finds the tumour of new slides.

    Raises:
        RunError: the folder exists, or each fit has a backbone of its own.
        FeaturesError: the file is no segmenter.
    """
    _check_packable(predictor, out)
    cards = _read_cards(predictor, segmenter)
    veil = Veil.new()
    predictor = predictor.veiled(veil)
    card = replace(card, cases=tuple(sorted({*predictor.cases.values()})))
    (out / "models").mkdir(parents=True)
    files: dict[str, dict[str, int]] = {}
    notes = list(predictor.notes)
    for number, fit in enumerate(predictor.fits):
        files[f"models/{number}.safetensors"] = {"repeat": fit.repeat, "fold": fit.fold}
        path = out / f"models/{number}.safetensors"
        save_model(path, fit.model)
        path.with_suffix(".json").unlink()  # says again what is inside
    if predictor.reference is not None:
        save_reference(out / REFERENCE, predictor.reference)
    if note := _write_backbone(predictor.recipe, out / BACKBONE):
        notes.append(note)
    if cards:
        region = next(iter(recipe_parts(predictor.recipe))).get("region", "")
        apart = "" if segmenter else f"One for each of {len(cards)} fits, of its training cases: "
        about = describe_segmenter(_one_card(list(cards.values())), str(region))
        if segmenter and predictor.segments:
            about += f" {OTHER_SEGMENTER}"
        card = replace(card, segmenter=apart + about)
        for name, file in _segmenters(predictor, segmenter).items():
            _pack_segmenter(predictor, file, out / name)
    write_atomic(out / CARD, card.to_markdown(notes))
    others = [path for name in (*OTHERS, *cards) if (path := out / name).is_file()]
    info = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "title": predictor.title,
        "task": predictor.task,
        "model": predictor.model,
        "reads_tiles": predictor.reads_tiles,
        "fits": files,
        "reader": predictor.reader.to_json(),
        "veil": asdict(veil),
        "cases": dict(predictor.cases),
        "bags": dict(predictor.bags),
        "reading": asdict(predictor.reading),
        "performance": predictor.performance,
        "card": asdict(card),
        "notes": notes,
        "sha256": {
            str(path.relative_to(out)): sha256_of(path)
            for path in [*(out / name for name in files), *others]
        },
    }
    write_json(out / PACKAGE, info | {"seal": fingerprint(info)})
    return Package(out, card, tuple(notes))


def _check_packable(predictor: Predictor, out: Path) -> None:
    """Refuse, before anything is written, what makes no package.

    Raises:
        RunError: saying why.
    """
    if out.exists():
        raise RunError(f"{out} exists. Name a new folder for the package.")
    if predictor.embeds:
        raise RunError(
            f"{predictor.source} fine-tuned a backbone in each of {len(predictor.fits)} folds, and a package "
            "holds one. Answer from the run itself, whose folder can be copied whole; or cross-validate on "
            "bags of one backbone, and pack that run."
        )
    if predictor.reads_tiles and predictor.reference is None:
        raise RunError(
            "This run has no record of its training slides, so a package could not compare new ones. "
            f"{' '.join(predictor.notes)}"
        )


def _segmenters(predictor: Predictor, segmenter: Path | None) -> dict[str, Path]:
    """The files of segmenters by their names in a package: the given one, else those of all fits."""
    if segmenter:
        return {SEGMENTER: segmenter}
    if not predictor.segments:
        return {}
    return {_of_fit(n): fit.segmenter for n, fit in enumerate(predictor.fits) if fit.segmenter}


def _of_fit(number: int) -> str:
    return f"segmenters/{number}.safetensors"


def _read_cards(predictor: Predictor, segmenter: Path | None) -> dict[str, "SegmenterCard"]:
    """The cards of the segmenters that are packed.

    Raises:
        FeaturesError: a file is no segmenter.
    """
    files = _segmenters(predictor, segmenter)
    if not files:
        return {}
    from features.lowpower.segmenter import read_segmenter_card  # imports every backbone

    return {name: read_segmenter_card(file)[0] for name, file in files.items()}


def _one_card(cards: "Sequence[SegmenterCard]") -> "SegmenterCard":
    """The card of a segmenter; of several of folds the first, with the figures over the cases of all."""
    if len(cards) == 1:
        return cards[0]
    from mil.segmentation.evaluation import pool_evaluations

    pooled = pool_evaluations([card.evaluation for card in cards], cards[0].kind)
    return replace(cards[0], evaluation=pooled)


def _pack_segmenter(predictor: Predictor, file: Path, out: Path) -> None:
    """Write a segmenter that names its cases by fingerprints."""
    from features.lowpower.segmenter import (
        load_segmenter,
        read_segmenter_card,
        save_segmenter,
    )  # fmt: skip

    finder = load_segmenter(file)
    nameless = replace(
        finder.card,
        trained_on=tuple(map(predictor.hide, finder.card.trained_on)),
        reference_cases=tuple(map(predictor.hide, finder.card.reference_cases)),
        evaluation={},
        settings={},
        copy_of=read_segmenter_card(file)[1],
    )
    out.parent.mkdir(exist_ok=True)
    save_segmenter(out, replace(finder, card=nameless))


def places(source: Path, out: Path | None) -> tuple[Path, Path]:
    """Where answers are written, and the bags of new slides: not into a package, which is passed on.

    Nor into a run that cannot be written to: its answers and bags then stand beside each other.

    Args:
        source: a run folder or a package.
        out: the CSV; ``predict.csv`` in the run folder, or here for a package, if not given.
    """
    if not is_package(source) and (out is None or os.access(source, os.W_OK)):
        return out or source / "predict.csv", source / "bags"
    path = out or Path("predict.csv")
    return path, path.with_name(f"{path.stem}-bags")


def open_predictor(path: Path, model: str = "", *, store: Path | None = None) -> Predictor:
    """The predictor of a run folder or of a package.

    Args:
        path: the folder.
        model: its name; of a cross-validation the best one if not given.
        store: where the run's bag store is now, if it has moved; remembered.

    Raises:
        NotInRun: there is no such model.
        RunError: the folder is neither, the run is not finished, or it has no such model.
        FitError: a fit is missing.
    """
    if not is_package(path):
        return predictor_of_run(open_run(path, store=store), model)
    if store is not None:
        raise RunError(f"{path} is a package and needs no bag store. Leave store out.")
    predictor = read_package(path)
    if model and (problem := unknown_problem("model", [model], [predictor.model])):
        raise NotInRun(f"{path}: {problem}")
    return predictor


def read_package(path: Path) -> Predictor:
    """The predictor of a package.

    Raises:
        RunError: the folder is no package, was written by a newer version, or a file was changed.
        FitError: a model cannot be read.
    """
    info = read_info(path)
    fits = tuple(
        Fit(
            place["repeat"],
            place["fold"],
            load_model(path / name),
            hides=True,
            segmenter=path / _of_fit(number) if _of_fit(number) in info["sha256"] else None,
        )
        for number, (name, place) in enumerate(info["fits"].items())
    )
    return Predictor(
        source=path,
        title=info["title"],
        task=info["task"],
        model=info["model"],
        fits=fits,
        reader=reader_class(task_class(info["task"])).from_json(info["reader"]),
        reference=load_reference(path / REFERENCE) if REFERENCE in info["sha256"] else None,
        reads_tiles=info["reads_tiles"],
        cases=info["cases"],
        names={},
        bags=info["bags"],
        veil=Veil.from_json(info["veil"]),
        reading=TableReading.from_settings(info["reading"]),
        performance=info["performance"],
        backbone=path / BACKBONE if BACKBONE in info["sha256"] else None,
        segmenter=path / SEGMENTER if SEGMENTER in info["sha256"] else None,
        notes=tuple(info["notes"]),
    )


def read_info(path: Path) -> dict[str, Any]:
    """package.json, after its files were compared with it.

    Raises:
        RunError: the folder is no package, was written by a newer version, or a file was changed.
    """
    try:
        info: dict[str, Any] = parse_json((path / PACKAGE).read_text(encoding="utf-8"))
        check_version(path, int(info["format_version"]), FORMAT_VERSION, RunError)
        if info["format"] != FORMAT or info["format_version"] != FORMAT_VERSION:
            raise RunError(
                f"{path}: the package is of another format. Pack the run again, with the version of sarcomil "
                "that reads it."
            )
        seal = info.pop("seal")
        if seal != fingerprint(info):
            raise RunError(f"{path / PACKAGE} is not the file that was packed. Copy it again.")
        Veil.from_json(info["veil"])
        files: Mapping[str, str] = info["sha256"]
        changed = [name for name, sha256 in files.items() if sha256_of(path / name) != sha256]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{path}: not a complete package ({error}). Copy the whole folder again."
        ) from error
    if changed:
        raise RunError(f"{path / changed[0]} is not the file that was packed. Copy it again.")
    return info


def read_card(path: Path) -> str:
    """The card of a package, as text.

    Raises:
        RunError: as ``read_info``.
    """
    read_info(path)
    return (path / CARD).read_text(encoding="utf-8")


def _write_backbone(recipe: Mapping[str, Any], out: Path) -> str:
    """Write the encoder's weights, if they may be passed on; returns why not, else empty."""
    name, weights = str(recipe.get("backbone", "")), str(recipe.get("weights", ""))
    if weights.startswith("random"):
        return ""  # drawn again from their seed
    if recipe.get("region") not in ("annotations", "tissue", SEGMENTED):
        return "The bags were made elsewhere: only bags made in the same way are answered for."
    if weights != "pretrained":
        return f"The encoder's weights, {weights}, are not in the package: pass them on with it."
    from features.backbones.catalogue import fetch_weights, published_recipe

    known = published_recipe(name)
    licence = known.licence if known else "not known"
    if known is None or known.gated or licence.casefold() not in OPEN_LICENCES:
        return (
            f"The encoder {name} is not in the package, as its licence ({licence}) does not let it be passed "
            "on: it must be available where the package is used."
        )
    try:
        fetch_weights(name, out, overwrite=True)
    except BackboneError as error:
        return f"The encoder {name} is not in the package: {error}"
    return ""
