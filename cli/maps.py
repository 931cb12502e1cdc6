"""What `mil explain` does: the model for a slide, a map and its files, all maps of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cli.options import UsageError

PIXEL_METHODS = ("grad-cam", "guided-grad-cam")
GUESSING = 0.05  # p above which a model may as well have guessed
RANDOM_WEIGHTS = "The backbone has random weights: what lights up in a tile was not learnt."

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cli.explain import ExplainOptions
    from features.backbones.registry import Backbone
    from features.bags import Bag
    from mil.explain.examine import Examined
    from mil.explain.question import Question
    from mil.fitted import Fitted
    from mil.runs import Run


def model_for(run: "Run", bag: "Bag", options: "ExplainOptions") -> "tuple[Fitted, str]":
    """The model to explain, and what it has to do with the case."""
    from mil.fitted import load_fitted
    from mil.runs import check_results, written
    from mil.splits import read_folds

    case = run.case_of(bag.slide, bag.case)
    if run.info["command"] == "train":
        name = _explainable(run, [run.settings["model"]], options)
        fitted = load_fitted(written(run, run.model_path(name)))
        return fitted, _relation(fitted, case)
    check_results(run)
    model = _explainable(run, run.settings["models"], options)
    folds = [fold for fold in read_folds(run.path / "folds.json") if fold.repeat == 0]
    fold = next((fold for fold in folds if case in fold.test), folds[0])
    fitted = load_fitted(written(run, run.model_path(model, fold)))
    return fitted, f"model of fold {fold.index}, {_relation(fitted, case)}"


def _explainable(run: "Run", held: Sequence[str], options: "ExplainOptions") -> str:
    """The model asked for, or the first of the run that learns attention.

    Raises:
        UsageError: the run does not hold it, or it has no attention to show.
    """
    from mil.heads.registry import HEADS

    asked = options.model
    attending = [name for name in held if HEADS[name].learns_attention]
    able = attending if options.method == "attention" and not options.all else list(held)
    if (asked or "") in able:
        return str(asked)
    if asked is None and able:
        return (attending or able)[0]
    what = (
        f"learns no attention in {asked}"
        if asked in held
        else f"holds no {asked or 'attention model'}"
    )
    raise UsageError(
        f"{run.path} {what}; it can explain {', '.join(able) or 'none'} of {', '.join(held)}. Every other "
        "model gives each tile the weight it is given. Pass --model, or run with abmil."
    )


def _relation(fitted: "Fitted", case: str) -> str:
    """What the model itself says of having seen the case."""
    if not case:
        return "its case is not known: the model may have seen it"
    from mil.spelling import among

    seen = among([case], fitted.trained_on)
    return "trained on this case" if seen else "not trained on this case"


def known_tiles(regions: Path | None, bag: "Bag") -> "NDArray[np.bool_] | None":
    """Tiles of which at least half lies in what was drawn for the slide; None without drawings."""
    if regions is None:
        return None
    import shapely

    from features.annotations import find_annotation, polygons_of, read_annotations
    from features.masks import coverage

    drawing = read_annotations(find_annotation(regions, bag.slide, bag.slide))
    area = polygons_of(shapely.union_all([each.polygon for each in drawing.annotations]))
    x, y = (bag.coords_l0 - (bag.bounds_l0 if bag.annotation_origin == "bounds" else (0, 0))).T
    return coverage(area, x.astype(float), y.astype(float), bag.side_l0) >= 0.5


def answering(question: "Question") -> str:
    """Evidence where the answer is a sum over tiles, else the answer to single tiles."""
    from mil.errors import FitError
    from mil.explain.evidence import evidence_scores

    try:
        evidence_scores(question)
    except FitError:
        return "single-tile"
    return "evidence"


def worth(run: "Run", model: str) -> tuple[str, ...]:
    """A sentence where the run found its model no better than guessing."""
    import json

    path = run.path / "metrics.json"
    if not path.is_file():
        return ()
    found = {each["model"]: each for each in json.loads(path.read_text())["models"]}
    if model not in found:
        return ()
    p = max(found[model].get(name) or 0.0 for name in ("p_chance", "p_majority"))
    if p <= GUESSING:
        return ()
    return (
        f"{model} is no better than guessing in this run ({found[model]['correct']:g} of "
        f"{found[model]['n']} right, p = {p:.2g}): a map true to it says nothing of the disease.",
    )


def write_map(out: Path, examined: "Examined", caption: str) -> list[Path]:
    """The four files of a map; the verdict is said too."""
    from cli.console import say, warn
    from features.slides import file_name
    from mil.explain.examine import facts_of
    from mil.explain.figure import draw_explanation
    from mil.explain.scores import write_csv, write_geojson
    from mil.runs import write_json

    scores, class_name = examined.scores, examined.question.class_name
    facts = facts_of(examined)
    say(f"  {class_name}, probability {facts['probability']:.2f}. {examined.faithfulness.verdict}.")
    if found := examined.localisation:
        say(
            f"  known tiles: AUC {found.auc:.3f} (p = {found.p:.2g}), {100 * found.mass:.0f} % of the map on "
            f"{100 * found.share:.0f} % of the tiles, its top {'inside' if found.pointing else 'outside'}"
        )
    for warning in examined.warnings:
        warn(f"  {warning}")
    out.mkdir(parents=True, exist_ok=True)
    base = out / f"{file_name(scores.bag.slide)}-{scores.model}-{scores.method}"
    suffixes = (".png", ".csv", ".geojson", ".json")
    paths = [base.with_name(base.name + suffix) for suffix in suffixes]
    told = f"{caption}\n{class_name}, probability {facts['probability']:.2f}"
    paths[0].write_bytes(
        draw_explanation(
            scores, examined.faithfulness, caption=told, class_name=class_name,
            warnings=examined.warnings,
        )
    )  # fmt: skip
    write_csv(paths[1], scores)
    write_geojson(paths[2], scores)
    write_json(paths[3], facts)
    return paths


def write_tiles(
    base: Path, examined: "Examined", slide: Path, options: "ExplainOptions", run: "Run"
) -> list[Path]:
    """The highest and lowest tiles, and for a method of pixels where in the highest the answer lies."""
    import numpy as np

    from cli.console import warn
    from features.slides import open_slide
    from mil.explain.contact import draw_contact, draw_tile_maps, ends_of
    from mil.explain.gradcam import recomputed_warning, tile_maps
    from mil.explain.single_tile import single_tile_scores

    scores, bag = examined.scores, examined.scores.bag
    opened = open_slide(slide, mpp=options.slide_mpp)
    if opened.size_l0 != bag.size_l0:
        raise UsageError(
            f"{slide} is {opened.size_l0[0]} x {opened.size_l0[1]} pixels, the bag's slide "
            f"{bag.size_l0[0]} x {bag.size_l0[1]}. Give the slide the bag was made from."
        )

    def read(index: int) -> "NDArray[np.uint8]":
        x, y = bag.coords_l0[index]
        return opened.read(int(x), int(y), bag.tile_px, bag.target_mpp)

    sheet = base.with_name(f"{base.stem}-tiles.png")
    sheet.write_bytes(draw_contact(scores, read, caption=examined.faithfulness.verdict))
    if options.method not in PIXEL_METHODS:
        return [sheet]
    top, _ = ends_of(scores)
    backbone = _backbone_of(run, options)
    found = tile_maps(
        examined.question,
        backbone,
        np.stack([read(index) for index in top]),
        guided=options.method == "guided-grad-cam",
    )
    stored = single_tile_scores(examined.question).values[top]
    told = (
        *found.warnings,
        *recomputed_warning(stored, found.margins),
        *([RANDOM_WEIGHTS] if backbone.weights.startswith("random") else []),
    )
    for warning in told:
        warn(f"  {warning}")
    inside = base.with_name(f"{base.stem}-{options.method}.png")
    inside.write_bytes(draw_tile_maps(scores, top, read, found, caption="\n".join(told)))
    return [sheet, inside]


def _backbone_of(run: "Run", options: "ExplainOptions") -> "Backbone":
    """The network that made the run's bags.

    Raises:
        UsageError: the bags came from another tool.
    """
    from cli.inputs import recipe_from
    from features.backbones.registry import load_backbone

    recipe = run.info["recipe"]
    if recipe.get("region") == "converted":
        raise UsageError("The bags were made by another tool, whose network is not here.")
    asked = recipe_from(recipe, options.weights, run.path / "bags")
    return load_backbone(recipe["backbone"], asked.weights)


def explain_all(options: "ExplainOptions", run: "Run") -> list[Path]:
    """Every method on every slide: a table on paper, and one to keep."""
    from dataclasses import asdict

    import pandas as pd

    from cli.console import Bars, say, show_table
    from features.bags import read_bag
    from mil.errors import FitError
    from mil.explain.examine import conclusion, examine, measures, summarise_methods
    from mil.explain.faithfulness import random_curves
    from mil.explain.methods import METHODS
    from mil.explain.question import ask

    maps: list[Examined] = []
    rows, unsuited, model = [], {}, ""
    with Bars().task("slides", len(run.info["bags"]), "slides") as advance:
        for slide in run.info["bags"]:
            bag = read_bag(_store_of(run, slide) / f"{slide}.h5")
            fitted, _ = model_for(run, bag, options)
            model = fitted.model
            question = ask(fitted, bag, options.class_name)
            random, known = random_curves(question), known_tiles(options.regions, bag)
            if known is not None and known.all() == known.any():
                known = None  # nothing to tell apart on this slide
            for method in METHODS:
                try:
                    examined = examine(question, method, random, known)
                except FitError as error:
                    unsuited[method] = str(error)
                    continue
                maps.append(examined)
                found = {
                    "slide": slide,
                    "model": model,
                    "method": method,
                    "class": question.class_name,
                }
                located = examined.localisation
                rows.append(
                    found | measures(examined.faithfulness) | (asdict(located) if located else {})
                )
            advance(1)
    methods = summarise_methods(maps)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"faithfulness-{model}.csv"
    pd.DataFrame(rows).to_csv(path, index=False, float_format="%.6g")
    header = [
        "method",
        "deletion",
        "(random)",
        "insertion",
        "gain",
        "better than random",
        "known tiles",
    ]
    show_table(
        header,
        [
            [
                each.method, f"{each.deletion:.3f}", f"{each.deletion_random:.3f}", f"{each.insertion:.3f}",
                f"{each.gain:.3f}", f"{each.better}/{each.slides}",
                "-" if each.auc is None else f"{each.auc:.3f}",
            ]
            for each in methods
        ],
    )  # fmt: skip
    for reason in unsuited.values():
        say(reason)
    say(conclusion(methods, model))
    say(f"  {path}")
    return [path]


def _store_of(run: "Run", slide: str) -> Path:
    """Where the run's bag of a slide lies."""
    from mil.splits import read_folds

    if run.settings.get("finetune", "off") != "per-fold":
        return Path(run.settings["store"])
    case = run.case_of(slide)
    folds = read_folds(run.path / "folds.json")
    return next(run.fold_store(fold) for fold in folds if case in fold.test)
