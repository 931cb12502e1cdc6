"""Tables of predictions as other tools write them, read as ours.

STAMP writes PATIENT, <target>, pred and <target>_<class>...; CLAM slide_id, Y, Y_hat and p_0...;
slideflow slide, y_true and y_pred0...; others case_id, slide_id, label and p_ or prob_<class>.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from features.slides.names import slide_name
from mil.data.headers import PREDICTIONS, match_columns
from mil.errors import PredictionsError
from mil.evaluation.cells import KEYS, parse_column, read_text_table
from mil.evaluation.classification.predictions import COLUMNS, PREFIX, ClassPredictions
from mil.evaluation.predictions import Predictions, concat, kind_of, read_predictions
from mil.evaluation.table_rules import check_names, check_outcomes, check_parts, with_events

# A column of probabilities by its class: ours and CLAM's, common, slideflow's.
PROBABILITY = re.compile(r"(?:p_|prob_|probability_|y_pred(?=\d))(.+)", re.IGNORECASE)


@dataclass(frozen=True)
class SlideLabel:
    """The row of a slide in a cohort table."""

    case: str
    label: str


Labels = Mapping[str, SlideLabel]  # by slide


def read_any_tables(
    paths: Sequence[Path], labels: Labels | None = None, classes: Sequence[str] = ()
) -> tuple[Predictions, tuple[str, ...]]:
    """Read one table of predictions of any kind, or the tables of the folds of one cross-validation.

    Args:
        paths: CSV, with commas, semicolons or tabs. Several without a column fold are folds, in this order.
        labels: case and label by slide; for predictions of classes only, as ``read_tables`` takes them.
        classes: likewise.

    Returns:
        The predictions, and what had to be assumed.

    Raises:
        PredictionsError: as ``read_tables``, or labels or classes are given for predictions without classes.
    """
    kind = kind_of([str(name) for name in read_text_table(paths[0]).columns])
    if kind is ClassPredictions:
        return read_tables(paths, labels, classes)
    if labels or classes:
        raise PredictionsError(
            f"{paths[0]} holds {kind.answers}: a cohort table and names of classes are for probabilities of "
            "classes. Leave cohort and classes out."
        )
    parts, notes = [], list[str]()
    for number, path in enumerate(paths):
        table, remarks = _complete(path, _read(path), number)
        for name in kind.outcome_columns:
            check_outcomes(path, table, name)
        table = with_events(path, table) if "event" in kind.outcome_columns else table
        try:
            parts.append(kind.parse(table))
        except PredictionsError as error:
            raise PredictionsError(f"{path}: {error}") from error
        notes += [remark for remark in remarks if remark not in notes]
    predictions = concat(parts)
    check_names(paths[0], predictions.table)
    return predictions, tuple(notes)


def _complete(path: Path, table: pd.DataFrame, number: int) -> tuple[pd.DataFrame, list[str]]:
    """The table with a model, repeat, fold, case and slide in each row, and what was assumed."""
    columns = _columns(path, table, KEYS)
    cases, slides, notes = _find_cases(path, table, columns, {})
    others = table.drop(columns=[column for column in columns.values() if column])
    keys = _keys(path, table, number, columns, cases, slides)
    check_parts(path, {str(name): others[name].tolist() for name in others})
    return pd.concat([keys, others], axis=1), notes


def _keys(
    path: Path,
    table: pd.DataFrame,
    number: int,
    columns: Mapping[str, str | None],
    cases: "pd.Series[str]",
    slides: "pd.Series[str]",
) -> pd.DataFrame:
    """The columns that say whose prediction a row is; one model, repeat and fold where none is named."""
    return pd.DataFrame(
        {
            "model": table[columns["model"]] if columns["model"] else "model",
            "repeat": _integers(path, table, columns["repeat"], 0),
            "fold": _integers(path, table, columns["fold"], number),
            "case": cases,
            "slide": slides,
        }
    )


def read_tables(
    paths: Sequence[Path], labels: Labels | None = None, classes: Sequence[str] = ()
) -> tuple[ClassPredictions, tuple[str, ...]]:
    """Read one table of probabilities of classes, or the tables of the folds of one cross-validation.

    Args:
        paths: CSV, with commas, semicolons or tabs. Several without a column fold are folds, in this order.
        labels: case and label by slide, where the tables do not state them; where they do, labels must agree.
        classes: names of the classes that the tables call 0, 1, ...

    Returns:
        The predictions, and what had to be assumed.

    Raises:
        PredictionsError: a table cannot be understood, and the message names the column that is needed; or
            its labels are not those of ``labels``, and the message names a case.
    """
    tables, notes, first_classes = [], list[str](), tuple[str, ...]()
    for number, path in enumerate(paths):
        table = _read(path)
        if set(COLUMNS) <= set(table.columns):
            further = sorted(set(table.columns) - {*COLUMNS})
            check_parts(path, {name: table[name].tolist() for name in further})
            check_outcomes(path, table, "label", _classes_of(table))
            predictions = ClassPredictions.expect(read_predictions(path))
            table, names, remarks = predictions.table, predictions.classes, list[str]()
        else:
            slides = _strip_suffixes(path, table)
            table, names, remarks = _translate(path, slides, number, labels or {}, classes)
        remarks += _compare_labels(path, table, names, labels or {})
        first_classes = first_classes or names
        if set(names) != set(first_classes):
            raise PredictionsError(
                f"{path} has the classes {', '.join(names)}; {paths[0]} has {', '.join(first_classes)}. "
                "Give tables with the same classes."
            )
        tables.append(table)
        notes += [remark for remark in remarks if remark not in notes]
    joined = pd.concat(tables, ignore_index=True)
    check_names(paths[0], joined)
    return ClassPredictions(joined, first_classes), tuple(notes)


def _read(path: Path) -> pd.DataFrame:
    table = read_text_table(path)
    if "level" in table.columns and "slide" in set(table["level"]):  # predictions of new slides
        return table[table["level"] == "slide"].reset_index(drop=True)
    return table


def _compare_labels(
    path: Path, table: pd.DataFrame, classes: Sequence[str], labels: Labels
) -> list[str]:
    """Refuse labels that are not the cohort table's; a remark where the two cannot be compared."""
    by_slide = {slide: row.label for slide, row in labels.items() if row.label}
    by_case = {row.case: row.label for row in labels.values() if row.label}
    expected = table["slide"].map(by_slide).fillna(table["case"].map(by_case))
    if not set(expected.dropna()) & set(classes):
        return [
            "Labels are those of the predictions: the cohort table has others. Where the classes are "
            "numbered, name them (classes=...) to have both compared."
        ] * bool(expected.notna().any())
    different = table[expected.notna() & (expected != table["label"])].drop_duplicates("case")
    if len(different):
        first, more = different.iloc[0], len(different) - 1
        raise PredictionsError(
            f"Case {first['case']} is {first['label']} in {path} and {expected[different.index[0]]} in the "
            f"cohort table{f', and {more} more differ' * (more > 0)}. Correct the labels, or the names in "
            "classes=..."
        )
    return []


def _strip_suffixes(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """The table with slides named as a cohort table names them: CLAM may leave .h5 behind a name."""
    slide = _columns(path, table, ["slide"])["slide"]
    if slide is None:
        return table
    return table.assign(**{slide: table[slide].map(lambda name: name and slide_name(name))})


def _translate(
    path: Path, table: pd.DataFrame, number: int, labels: Labels, classes: Sequence[str]
) -> tuple[pd.DataFrame, tuple[str, ...], list[str]]:
    """One table in our columns, its classes, and what was assumed."""
    columns = _columns(path, table, PREDICTIONS)
    further = set(table.columns) - {*columns.values()}
    check_parts(path, {name: table[name].tolist() for name in sorted(further)})
    label, probabilities = _find_answers(path, table, columns["label"])
    cases, slides, notes = _find_cases(path, table, columns, labels)
    if label is None and not labels:
        raise PredictionsError(
            f"{path} has no label; got columns {', '.join(table.columns)}. Name one label, or give the "
            "cohort table (cohort=...)."
        )
    truth = table[label] if label is not None else _labels_by_case(path, cases, labels)
    names = _name_classes(path, tuple(probabilities), classes)
    translated = _keys(path, table, number, columns, cases, slides)
    translated["label"] = [names.get(_class_key(value), value) for value in truth]
    check_outcomes(path, translated, "label", {*names, *names.values()})
    for name, column in probabilities.items():
        translated[PREFIX + names[_class_key(name)]] = _parsed(path, table[column], float)
    return translated, tuple(names.values()), notes


def _find_cases(
    path: Path, table: pd.DataFrame, columns: Mapping[str, str | None], labels: Labels
) -> tuple["pd.Series[str]", "pd.Series[str]", list[str]]:
    """The case and the slide of each row, and what was assumed."""
    case, slide = columns["case"], columns["slide"]
    first = slide if slide is not None else case
    if first is None:
        raise PredictionsError(
            f"{path} names no case; got columns {', '.join(table.columns)}. Name one case or slide."
        )
    slides = table[first]
    if case is not None:
        return table[case], slides, []
    if not labels:
        return slides, slides, [
            "The table names slides only: each is taken as a case of its own. Where a case has several "
            "slides, the intervals are too narrow; give the cohort table (cohort=...)."
        ]  # fmt: skip
    cases = slides.map({name: row.case for name, row in labels.items()})
    if cases.isna().any():
        raise PredictionsError(
            f"{path}: the cohort table has no slide {slides[cases.isna()].iloc[0]!r}. Add its row."
        )
    return cases, slides, []


def _columns(path: Path, table: pd.DataFrame, names: Iterable[str]) -> dict[str, str | None]:
    """The columns by what they hold; None for what the table lacks."""
    chosen = {name: PREDICTIONS[name] for name in names}
    columns = match_columns(path, table.columns, chosen, PredictionsError)
    return {name: columns.get(name) for name in chosen}


def _find_answers(
    path: Path, table: pd.DataFrame, label: str | None
) -> tuple[str | None, dict[str, str]]:
    """The column of labels, and those of probabilities by class."""
    by_class = {
        match.group(1): name for name in table.columns if (match := PROBABILITY.fullmatch(name))
    }
    if len(by_class) >= 2:
        return label, by_class
    for name in table.columns:  # STAMP's: every class is named after the target
        by_class = {
            other[len(name) + 1 :]: other for other in table.columns if other.startswith(name + "_")
        }
        if len(by_class) >= 2 and set(table[name]) <= set(by_class):
            return name, by_class
    kind = kind_of([str(name) for name in table.columns])
    if kind is not ClassPredictions:
        raise PredictionsError(
            f"{path} holds {kind.answers}, no probabilities of classes. Evaluate it by itself."
        )
    raise PredictionsError(
        f"{path} holds no probability of two or more classes; got columns {', '.join(table.columns)}. "
        "Give one column p_<class> per class; for survival time, event, risk and s_<time>; for grades grade "
        "and g_<grade>."
    )


def _labels_by_case(path: Path, cases: "pd.Series[str]", labels: Labels) -> "pd.Series[str]":
    by_case = cases.map({row.case: row.label for row in labels.values()})
    if by_case.isna().any():
        raise PredictionsError(
            f"{path}: the cohort table has no case {cases[by_case.isna()].iloc[0]!r}. Add its row."
        )
    return by_case


def _name_classes(path: Path, columns: tuple[str, ...], classes: Sequence[str]) -> dict[str, str]:
    """The name of each class of the table: its own, or that of its number."""
    keys = [_class_key(name) for name in columns]
    if not classes or set(classes) == set(keys):
        return {name: name for name in keys}
    if len(classes) != len(columns) or set(keys) != {str(n) for n in range(len(columns))}:
        raise PredictionsError(
            f"{path} has the classes {', '.join(columns)}; classes={','.join(classes)} names classes that "
            "are numbered from 0. Leave it out, or name as many as the table counts."
        )
    return {str(number): name for number, name in enumerate(classes)}


def _class_key(name: str) -> str:
    """``1`` for the ``1.0`` that a class number becomes in a table of floats."""
    return name[:-2] if re.fullmatch(r"\d+\.0", name) else name


def _integers(
    path: Path, table: pd.DataFrame, column: str | None, default: int
) -> "pd.Series[int]":
    if column is None:
        return pd.Series(default, index=table.index)
    return _parsed(path, table[column], int)


def _parsed(
    path: Path, cells: "pd.Series[str]", number: type[int] | type[float]
) -> "pd.Series[Any]":
    """A column of numbers; see ``parse_column``."""
    try:
        return parse_column(cells, number, "integers" if number is int else "numbers")
    except PredictionsError as error:
        raise PredictionsError(f"{path}: {error}") from error


def _classes_of(table: pd.DataFrame) -> set[str]:
    return {name.removeprefix(PREFIX) for name in table.columns if name.startswith(PREFIX)}
