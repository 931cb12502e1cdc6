"""Every method on every slide of a run: which is the most faithful to the model?"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.bags.bag import Bag
from features.errors import AnnotationMissing
from features.files.atomic import write_atomic
from features.files.checksum import fingerprint
from features.progress import Progress, Silent
from mil.errors import FitError
from mil.explanation.assess import (
    MethodSummary,
    assess_map,
    conclusion,
    summarise_methods,
    summary_row,
)
from mil.explanation.caveats import chance_caveat, validation_caveat
from mil.explanation.faithfulness import random_curves
from mil.explanation.known import known_tiles
from mil.explanation.methods import bag_methods
from mil.explanation.models import choose_model, choose_target
from mil.explanation.target import explanation_target
from mil.learning.fitted import FittedModel
from mil.runs.run import Run

Rows = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class MethodComparison:
    """The methods of a model over the slides of a run.

    Attributes:
        model: its name.
        methods: the most faithful first.
        conclusion: which method to use; empty if the model may be guessing.
        unsuited: methods that do not suit the model, with the reason.
        undrawn: slides without an annotation among the regions.
        uninformative: slides with no tile, or every tile, in the regions.
        n_slides: number of slides.
        n_seen: slides whose case the model was, or may have been, trained on.
        warnings: whether the model may be guessing, or nobody has measured it.
        path: the table, a row per slide and method.
    """

    model: str
    methods: tuple[MethodSummary, ...]
    conclusion: str
    unsuited: Mapping[str, str]
    undrawn: tuple[str, ...]
    uninformative: tuple[str, ...]
    n_slides: int
    n_seen: int
    warnings: tuple[str, ...]
    path: Path


@dataclass
class _Progressing:
    """What has been learnt so far, slide by slide."""

    rows: Rows
    unsuited: dict[str, str] = field(default_factory=dict)
    undrawn: list[str] = field(default_factory=list)
    uninformative: list[str] = field(default_factory=list)
    n_seen: int = 0


def compare_methods(
    run: Run,
    folder: Path,
    *,
    model: str | None = None,
    target: str | None = None,
    regions: Path | None = None,
    progress: Progress | None = None,
) -> MethodComparison:
    """Every method on every slide of a run.

    The table grows slide by slide in ``*.part.csv``, from which the same call continues after a kill.

    Args:
        run: a cross-validation or a trained model.
        folder: for the table.
        model: name of the model; the run's first attention model if not given.
        target: a class; if not given the predicted class, or beside ``regions`` each case's own.
        regions: folder of annotations, by slide, of what maps should find.
        progress: shows how the work advances.

    Raises:
        FitError: the run has no such model, or no method suits a slide.
        RunError: a bag or a model has changed since the run.
    """
    name = choose_model(run, None, model)
    path = folder / f"faithfulness-{name}.csv"
    part = path.with_suffix(".part.csv")
    request = _request_fingerprint(run, model, target, regions)
    state = _Progressing(rows=_unfinished_rows(part, request))
    with (progress or Silent()).task("slides", len(run.bags), "slides") as advance:
        for slide in run.bags:
            bag = run.bag(slide)
            fitted, relation = run.model_for(slide, name, case=bag.case)
            state.n_seen += relation.seen is not False
            known = _informative_tiles(regions, bag, state)
            if slide not in {row["slide"] for row in state.rows}:
                label = choose_target(run, bag, fitted, target, regions)
                new = _method_rows(fitted, bag, label, known, state.unsuited)
                state.rows += [{"request": request, **row} for row in new]
                write_atomic(part, _to_csv(pd.DataFrame(state.rows)))
            advance(1)
    table = pd.DataFrame(state.rows).drop(columns="request")
    write_atomic(path, _to_csv(table))
    part.unlink()
    return _summarise(run, name, table, state, path)


def _summarise(
    run: Run, model: str, table: pd.DataFrame, state: _Progressing, path: Path
) -> MethodComparison:
    methods = tuple(summarise_methods(table))
    guessing = chance_caveat(run, model)
    return MethodComparison(
        model=model,
        methods=methods,
        conclusion="" if guessing else conclusion(methods, model),
        unsuited=state.unsuited,
        undrawn=tuple(state.undrawn),
        uninformative=tuple(state.uninformative),
        n_slides=len(run.bags),
        n_seen=state.n_seen,
        warnings=tuple(filter(None, [validation_caveat(run), guessing])),
        path=path,
    )


def _request_fingerprint(
    run: Run, model: str | None, target: str | None, regions: Path | None
) -> str:
    """Identifies the request that rows answer; rows of another one are not continued."""
    drawn = str(regions and regions.resolve())
    settings = {"class": target, "model": model, "regions": drawn}
    return fingerprint({"run": run.info, **settings})


def _unfinished_rows(part: Path, request: str) -> Rows:
    """The rows that the same request left behind when it was cut off."""
    if not part.is_file():
        return []
    rows: Any = pd.read_csv(part).to_dict("records")
    return list(rows) if all(row.get("request") == request for row in rows) else []


def _to_csv(table: pd.DataFrame) -> str:
    return table.to_csv(index=False, float_format="%.6g")


def _informative_tiles(
    regions: Path | None, bag: Bag, state: _Progressing
) -> NDArray[np.bool_] | None:
    """The known tiles if some are inside and some outside; other slides are noted."""
    if regions is None:
        return None
    try:
        known = known_tiles(regions, bag)
    except AnnotationMissing:
        state.undrawn.append(bag.slide)
        return None
    if known.all() == known.any():
        state.uninformative.append(bag.slide)
        return None
    return known


def _method_rows(
    fitted: FittedModel,
    bag: Bag,
    label: str | None,
    known: NDArray[np.bool_] | None,
    unsuited: dict[str, str],
) -> Rows:
    """A row for each method that suits the model; notes why others do not."""
    target = explanation_target(fitted, bag, label)
    random, rows = random_curves(target), []
    for method in bag_methods():
        try:
            rows.append(summary_row(assess_map(target, method.name, random, known)))
        except FitError as error:
            unsuited[method.name] = str(error)
    return rows
