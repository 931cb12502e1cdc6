"""Tables of predictions as other tools write them, read as ours.

STAMP writes PATIENT, <target>, pred and <target>_<class>...; CLAM slide_id, Y, Y_hat and p_0...;
slideflow slide, y_true and y_pred0...; others case_id, slide_id, label and p_ or prob_<class>.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from features.slides.slide import slide_name
from mil.data.values import guess_delimiter
from mil.errors import PredictionsError
from mil.evaluation.classification.predictions import COLUMNS, PREFIX, ClassPredictions
from mil.evaluation.predictions import read_predictions
from mil.evaluation.survival.predictions import COLUMNS as SURVIVAL_COLUMNS

ALIASES = {
    "case": ("case", "case_id", "patient", "patient_id", "submitter_id"),
    "slide": ("slide", "slide_id", "filename"),
    "label": ("label", "y", "y_true", "true_label", "target"),
    "model": ("model",),
    "repeat": ("repeat",),
    "fold": ("fold",),
}
# A column of probabilities by its class: ours and CLAM's, common, slideflow's.
PROBABILITY = re.compile(r"(?:p_|prob_|probability_|y_pred(?=\d))(.+)", re.IGNORECASE)


@dataclass(frozen=True)
class Told:
    """What a cohort table says of a slide."""

    case: str
    label: str


def read_tables(
    paths: Sequence[Path],
    told: Mapping[str, Told] | None = None,
    classes: Sequence[str] = (),
) -> tuple[ClassPredictions, tuple[str, ...]]:
    """Read one table, or the tables of the folds of one cross-validation.

    Args:
        paths: CSV, with commas, semicolons or tabs. Several without a column fold are folds, in this order.
        told: case and label by slide, where the tables do not say; where they do, labels must agree.
        classes: names of the classes that the tables call 0, 1, ...

    Returns:
        The predictions, and what had to be assumed.

    Raises:
        PredictionsError: a table cannot be understood, and the message names the column wanted; or its
            labels are not those of ``told``, and the message names a case.
    """
    tables, notes, asked = [], list[str](), tuple[str, ...]()
    for number, path in enumerate(paths):
        table = _read(path)
        if set(COLUMNS) <= set(table.columns):
            found = ClassPredictions.expect(read_predictions(path))
            table, names, said = found.table, found.classes, list[str]()
        else:
            table, names, said = _translated(path, _bare(path, table), number, told or {}, classes)
        said += _checked(path, table, names, told or {})
        asked = asked or names
        if set(names) != set(asked):
            raise PredictionsError(
                f"{path} has the classes {', '.join(names)}; {paths[0]} has {', '.join(asked)}. "
                "Give tables of one question."
            )
        tables.append(table)
        notes += [each for each in said if each not in notes]
    return ClassPredictions(pd.concat(tables, ignore_index=True), asked), tuple(notes)


def _read(path: Path) -> pd.DataFrame:
    try:
        sep = guess_delimiter(path)
        table = pd.read_csv(path, sep=sep, dtype=str, keep_default_na=False, encoding="utf-8")
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as exc:
        raise PredictionsError(f"{path} cannot be read as a table of predictions: {exc}.") from exc
    if "level" in table.columns and "slide" in set(table["level"]):  # as `mil predict` writes it
        return table[table["level"] == "slide"].reset_index(drop=True)
    return table


def _checked(
    path: Path, table: pd.DataFrame, classes: Sequence[str], told: Mapping[str, Told]
) -> list[str]:
    """Refuse labels that are not the cohort table's; what is said where the two cannot be compared."""
    by_slide = {slide: each.label for slide, each in told.items() if each.label}
    by_case = {each.case: each.label for each in told.values() if each.label}
    wanted = table["slide"].map(by_slide).fillna(table["case"].map(by_case))
    if not set(wanted.dropna()) & set(classes):
        return [
            "Labels are the table's: the cohort table has others. Where the classes are numbered, name them "
            "(--classes) to have both compared."
        ] * bool(wanted.notna().any())
    moved = table[wanted.notna() & (wanted != table["label"])].drop_duplicates("case")
    if len(moved):
        first, more = moved.iloc[0], len(moved) - 1
        raise PredictionsError(
            f"Case {first['case']} is {first['label']} in {path} and {wanted[moved.index[0]]} in the cohort "
            f"table{f', and {more} more differ' * (more > 0)}. Mend the labels, or the names in --classes."
        )
    return []


def _bare(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """The table with its slides called as a cohort table calls them: CLAM may leave .h5 behind a name."""
    slide = _column(path, table, ALIASES["slide"])
    if slide is None:
        return table
    return table.assign(**{slide: table[slide].map(lambda name: name and slide_name(name))})


def _translated(
    path: Path,
    table: pd.DataFrame,
    number: int,
    told: Mapping[str, Told],
    classes: Sequence[str],
) -> tuple[pd.DataFrame, tuple[str, ...], list[str]]:
    """One table in our columns, its classes, and what was assumed."""
    columns = {ours: _column(path, table, names) for ours, names in ALIASES.items()}
    label, probability = _label_and_probabilities(path, table, columns["label"])
    case, slide = columns["case"], columns["slide"]
    if case is None and slide is None:
        raise PredictionsError(
            f"{path} names no case; got columns {', '.join(table.columns)}. Name one case or slide."
        )
    notes = []
    slides = table[slide if slide is not None else case]
    if case is not None:
        cases = table[case]
    elif told:
        cases = slides.map({name: each.case for name, each in told.items()})
        if cases.isna().any():
            raise PredictionsError(
                f"{path}: the cohort table has no slide {slides[cases.isna()].iloc[0]!r}. Add its row."
            )
    else:
        cases = slides
        notes.append(
            "The table names slides only: each is taken for a case of its own. Where a case has several, "
            "its intervals are too narrow; say which with --cohort."
        )
    if label is None and not told:
        raise PredictionsError(
            f"{path} has no label; got columns {', '.join(table.columns)}. Name one label, or pass --cohort."
        )
    labels = table[label] if label is not None else _labels_told(path, cases, told)
    named = _named(path, tuple(probability), classes)
    found = pd.DataFrame(
        {
            "model": table[columns["model"]] if columns["model"] else "model",
            "repeat": _whole(path, table, columns["repeat"], 0),
            "fold": _whole(path, table, columns["fold"], number),
            "case": cases,
            "slide": slides,
            "label": [named.get(_plain(each), each) for each in labels],
        }
    )
    for ours, column in probability.items():
        try:
            found[PREFIX + named[_plain(ours)]] = table[column].map(float)
        except ValueError as exc:
            raise PredictionsError(
                f"{path}: column {column} must hold numbers; got {exc}."
            ) from exc
    return found, tuple(named.values()), notes


def _column(path: Path, table: pd.DataFrame, names: Sequence[str]) -> str | None:
    found = [name for name in table.columns if name.lower() in names]
    if len(found) > 1:
        raise PredictionsError(
            f"{path}: columns {found[0]} and {found[1]} mean the same. Remove one."
        )
    return found[0] if found else None


def _label_and_probabilities(
    path: Path, table: pd.DataFrame, label: str | None
) -> tuple[str | None, dict[str, str]]:
    """The column of labels, and those of probabilities by class."""
    found = {
        match.group(1): name for name in table.columns if (match := PROBABILITY.fullmatch(name))
    }
    if len(found) >= 2:
        return label, found
    for name in table.columns:  # STAMP's: every class is named after the target
        found = {
            other[len(name) + 1 :]: other for other in table.columns if other.startswith(name + "_")
        }
        if len(found) >= 2 and set(table[name]) <= set(found):
            return name, found
    if set(SURVIVAL_COLUMNS) <= set(table.columns):
        raise PredictionsError(
            f"{path} is of a survival run, which has no classes. `mil evaluate` judges it by itself; "
            "`mil decision RUN` and `mil nomogram --task survival` read it, too."
        )
    raise PredictionsError(
        f"{path} holds no probability of two or more classes; got columns {', '.join(table.columns)}. "
        "Give one column p_<class> per class, or of survival time, event, risk and s_<time>."
    )


def _labels_told(path: Path, cases: pd.Series, told: Mapping[str, Told]) -> pd.Series:
    labels = cases.map({each.case: each.label for each in told.values()})
    if labels.isna().any():
        raise PredictionsError(
            f"{path}: the cohort table has no case {cases[labels.isna()].iloc[0]!r}. Add its row."
        )
    return labels


def _named(path: Path, found: tuple[str, ...], classes: Sequence[str]) -> dict[str, str]:
    """What each class of the table is called: by itself, or in the order of its number."""
    plain = [_plain(name) for name in found]
    if not classes or set(classes) == set(plain):
        return {name: name for name in plain}
    if len(classes) != len(found) or set(plain) != {str(number) for number in range(len(found))}:
        raise PredictionsError(
            f"{path} has the classes {', '.join(found)}; --classes gives {', '.join(classes)} as names of "
            "classes counted from 0. Leave it out, or name as many as the table counts."
        )
    return {str(number): name for number, name in enumerate(classes)}


def _plain(name: str) -> str:
    """``1`` for the ``1.0`` that a class number becomes in a table of floats."""
    return name[:-2] if re.fullmatch(r"\d+\.0", name) else name


def _whole(path: Path, table: pd.DataFrame, column: str | None, otherwise: int) -> "pd.Series[int]":
    if column is None:
        return pd.Series(otherwise, index=table.index)
    try:
        return table[column].map(int)
    except ValueError as exc:
        raise PredictionsError(f"{path}: column {column} must hold integers; got {exc}.") from exc
