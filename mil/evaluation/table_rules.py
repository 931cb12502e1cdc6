"""What tables of predictions share with cohort tables: missing values, names of patients, events, parts."""

from collections.abc import Collection, Mapping

import pandas as pd

from features.summary import listed
from mil.data.names import NUMBER, check_spelling
from mil.data.outcomes import read_event
from mil.data.parts import coded_parts, tested_places, trained_places
from mil.data.patients import shared_patient
from mil.data.values import is_missing
from mil.errors import CohortError, PredictionsError


def check_names(source: object, table: pd.DataFrame) -> None:
    """Refuse names of cases and slides by which one patient would count twice, or several as one.

    Args:
        source: of the table, for messages.
        table: of text, with the columns case and slide.

    Raises:
        PredictionsError: a name is missing, two differ in spelling only, or two cases are of one patient.
    """
    for name in ("case", "slide"):
        cells = table[name].tolist()
        if missing := [i for i, cell in enumerate(cells) if is_missing(str(cell))]:
            raise PredictionsError(
                f"{source}, row {missing[0] + 1} below the header: {name} is {cells[missing[0]]!r}, which "
                "means that it is missing. Fill it in, or leave the row out."
            )
    cases, slides = table["case"].unique().tolist(), table["slide"].unique().tolist()
    try:
        check_spelling(str(source), "case", cases)
        check_spelling(str(source), "slide", filter(NUMBER.fullmatch, slides))
    except CohortError as error:
        raise PredictionsError(str(error)) from error
    pairs = table[["case", "slide"]].drop_duplicates().itertuples(index=False, name=None)
    if shared := shared_patient(pairs):
        patient, first, second = shared
        raise PredictionsError(
            f"{source}: cases {first!r} and {second!r} are of one patient, {patient}, who would count twice. "
            f"Write one name as the case of both, such as {patient}."
        )


def check_outcomes(
    source: object, table: pd.DataFrame, column: str, known: Collection[str] = ()
) -> None:
    """Refuse outcomes that are missing.

    Args:
        source: of the table, for messages.
        table: of text, with the column case.
        column: of outcomes.
        known: words that are outcomes here, however they read.

    Raises:
        PredictionsError: naming the case.
    """
    for case, cell in zip(table["case"], table[column], strict=True):
        if cell not in known and is_missing(str(cell)):
            raise PredictionsError(
                f"{source}: {column} of case {case!r} is {cell!r}, which means that it is missing. Fill it "
                "in, or leave the rows of this case out."
            )


def with_events(source: object, table: pd.DataFrame) -> pd.DataFrame:
    """The table with events as 1 and 0, which may be words such as dead and alive.

    Raises:
        PredictionsError: a word says neither.
    """
    events = {cell: read_event(cell.strip()) for cell in table["event"].unique()}
    for cell, event in events.items():
        if event is None:
            raise PredictionsError(
                f"{source}: event is {cell!r}. Write 1 where the event happened and 0 where the case was "
                "censored."
            )
    return table.assign(event=table["event"].map(lambda cell: str(int(bool(events[cell])))))


def check_parts(source: object, columns: Mapping[str, list[str]]) -> None:
    """Refuse predictions of which a column says that only some are of cases for testing.

    Args:
        source: of the table, for messages.
        columns: cells of further columns, by name.

    Raises:
        PredictionsError: naming the column.
    """
    for name, cells in columns.items():
        places = tested_places(name, cells)
        if trained_places(name, cells):
            raise PredictionsError(
                f"{source}: column {name!r} says that {len(places)} of {len(cells)} rows are for testing "
                f"({cells[places[0]]!r} in row {places[0] + 1} below the header). The others were trained "
                "on, and do not tell how good a model is: keep the rows for testing, or remove the column if "
                "it says something else."
            )
        if codes := coded_parts(name, cells):
            raise PredictionsError(
                f"{source}: column {name!r} may say by codes which rows are for testing: it holds "
                f"{listed(codes)}. Keep the rows for testing alone. If it numbers the folds, call it fold; "
                "if it says something else, remove it."
            )
