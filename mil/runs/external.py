"""Cases that no model of a run has seen, read once by the ensemble of all its fits, and the log of it.

The cases are those a table marks with ``split`` = ``test``, or all of a table without such a mark. Whoever
reads them with a second model can choose between the two by the score, and then no unseen case is left: a
second model is refused. Every reading is written down where the next one will look, beside the table, in the
bag store and in the run, so that neither a new store nor a new table nor a copy of the run forgets it.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import torch

from mil.baselines.tile_vote import TileVoteLogits
from mil.data.cohort import Cohort
from mil.data.names import matching
from mil.data.splits import Fold
from mil.errors import LeakageError, RunError
from mil.evaluation.predictions import COLUMNS, PREFIX, Predictions
from mil.heads.ensemble import members_of
from mil.heads.registry import head_class
from mil.learning.crossval import check_seen
from mil.learning.fitted import Fitted
from mil.learning.prediction import run_head
from mil.runs.files import sha256_of
from mil.runs.run import Run

LOG = "readings.jsonl"
LOGIT = "logit_"


@dataclass(frozen=True)
class Reading:
    """One reading of external cases.

    Attributes:
        date: of it, UTC.
        model: that read them.
        run: its folder.
        predictions_sha256: of the run's cross-validation, by which the model is known again.
        table, table_sha256: the table.
        cases: read.
        bags: their fingerprints.
    """

    date: str
    model: str
    run: str
    predictions_sha256: str
    table: str
    table_sha256: str
    cases: tuple[str, ...]
    bags: tuple[str, ...]


def check_unseen(run: Run, members: Sequence[Fitted], cohort: Cohort) -> None:
    """Refuse cases that any of the models, their backbone or their stain has seen, under any name.

    Raises:
        LeakageError: naming them.
    """
    names = [case.name for case in cohort.cases]
    known = {*run.labels, *(name for member in members for name in member.trained_on)}
    seen = matching(names, known)
    held = set(run.bags.values())
    seen += [
        case.name
        for case in cohort.cases
        if case.name not in seen and any(bag.data_sha256 in held for bag in case.bags)
    ]
    if seen:
        raise LeakageError(
            f"{len(seen)} of {len(names)} cases have been learnt from by this run, e.g. "
            f"{', '.join(seen[:3])}. External cases are ones it has not seen: take these out of the table, "
            "or mark cases with split=test before `mil crossval`, which then leaves them alone."
        )
    check_seen(cohort, [Fold(repeat=0, index=0, train=(), test=tuple(names))])


def predict_together(members: Sequence[Fitted], cohort: Cohort) -> Predictions:
    """The mean of the models' logits, over the slides of a case too, and only then the softmax.

    As in Navarro et al. 2021 (doi:10.3390/cancers13122866): 15 models of 3 x 5 folds, one score per
    patient. A fit of several seeds counts as so many models. A model whose logits are themselves means over
    tiles weighs slides by their tiles, so that its score is the mean over all models and all tiles of the
    case.

    Returns:
        One row per slide: p of its case, and the slide's own mean logits in columns ``logit_<class>``.

    Raises:
        FitError: a bag was made by another recipe than the models'.
        CohortError: a model reads a column that the table does not have.
        RunError: a case has a label that the models do not know.
    """
    first = members[0]
    networks = [one for member in members for one in _networks(member)]
    per_tile = issubclass(head_class(first.model), TileVoteLogits)
    rows: list[dict[str, object]] = []
    for case in cohort.cases:
        slides = torch.stack(
            [
                torch.stack(
                    [run_head(m, bag, case.other).logits[0].double() for m in networks]
                ).mean(0)
                for bag in case.bags
            ]
        )  # (slides, C)
        weight = torch.tensor([float(len(bag)) if per_tile else 1.0 for bag in case.bags]).double()
        p = torch.softmax((weight / weight.sum()) @ slides, dim=0)
        for bag, logits in zip(case.bags, slides, strict=True):
            told = (first.model, 0, 0, case.name, bag.slide, case.label)
            rows.append(
                dict(zip(COLUMNS, told, strict=True))
                | {PREFIX + n: float(v) for n, v in zip(first.classes, p, strict=True)}
                | {LOGIT + n: float(v) for n, v in zip(first.classes, logits, strict=True)}
            )
    return Predictions(pd.DataFrame(rows), first.classes)


def _networks(fitted: Fitted) -> tuple[Fitted, ...]:
    return tuple(replace(fitted, head=head) for head in members_of(fitted.head))


def reading_of(run: Run, model: str, table: Path, cohort: Cohort) -> Reading:
    """What the log will say of a reading that is made now."""
    return Reading(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        model=model,
        run=str(run.path.absolute()),
        predictions_sha256=run.predictions_sha256,
        table=str(table.absolute()),
        table_sha256=sha256_of(table),
        cases=tuple(case.name for case in cohort.cases),
        bags=tuple(bag.data_sha256 for case in cohort.cases for bag in case.bags),
    )


def logs_of(table: Path, store: Path, run: Path) -> tuple[Path, Path, Path]:
    """Where readings of these cases are written: beside the table, in the store, and in the run's folder."""
    return table.with_name(f"{table.stem}.{LOG}"), store / LOG, run / "external" / LOG


def earlier(logs: Sequence[Path], reading: Reading) -> tuple[Reading, ...]:
    """The readings of any of the same cases that the logs hold, each once, by date.

    Raises:
        RunError: a log cannot be read: a line that is lost would let a second model in.
    """
    held = {each for log in logs for each in _read(log)}
    return tuple(
        sorted(
            (
                each
                for each in held
                if set(each.bags) & set(reading.bags) or matching(each.cases, reading.cases)
            ),
            key=lambda each: each.date,
        )
    )


def check_first(before: Sequence[Reading], reading: Reading) -> None:
    """Refuse a second model on cases that another has been read on.

    Raises:
        LeakageError: naming the first.
    """
    for each in before:
        if (each.model, each.predictions_sha256) != (reading.model, reading.predictions_sha256):
            raise LeakageError(
                f"These cases were read by {each.model} of {each.run} on {each.date}. A second model, here "
                f"{reading.model} of {reading.run}, could be chosen by its score on them, and the better "
                "score of two is not what unseen cases will give. Report the first; judge models against "
                "each other by `mil crossval`, and this one on cases that none has been read on."
            )


def log_reading(logs: Sequence[Path], reading: Reading) -> None:
    """Add a line to each log; nothing in them is ever changed.

    Raises:
        RunError: a log cannot be written to.
    """
    for log in logs:
        try:
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(reading)) + "\n")
        except OSError as error:
            raise RunError(
                f"{log}: cannot be written to ({error.strerror}), and a reading that is not logged is not "
                "made. Give the table and the store a folder of your own."
            ) from error


def _read(log: Path) -> Iterator[Reading]:
    if not log.exists():
        return
    for number, line in enumerate(log.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            told = json.loads(line)
            yield Reading(**told | {"cases": tuple(told["cases"]), "bags": tuple(told["bags"])})
        except (ValueError, TypeError, KeyError) as error:
            raise RunError(
                f"{log}, line {number}: not a reading as it was written ({error}). Put the line back."
            ) from error
