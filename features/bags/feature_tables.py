"""Read tables of features: which columns are features, and numbers in every cell of these."""

import csv
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.bags.foreign_readers import ForeignBag, SourceFacts, match_column
from features.columns.features import doubtful_columns, name_columns, refusal_of_columns
from features.errors import BagError

DELIMITERS = ",;\t"


@dataclass(frozen=True)
class FeatureTable:
    """The lines of a table.

    Attributes:
        path: of the file.
        delimiter: between cells; where it is no comma, a comma stands before decimals, as Excel writes them
            in most of Europe.
        header: names of the columns.
        lines: below the header that are not blank, by their number in the file.
    """

    path: Path
    delimiter: str
    header: Sequence[str]
    lines: Mapping[int, str]

    def cells(self, column: int) -> list[str]:
        """The cells of a column."""
        reader = csv.reader(self.lines.values(), delimiter=self.delimiter)
        return [row[column].strip() for row in reader]

    def numbers(self, columns: Sequence[int]) -> NDArray[np.float64]:
        """(n, len(columns)) the cells of columns as numbers.

        Raises:
            BagError: naming a cell that is none.
        """
        if not columns:
            return np.zeros((len(self.lines), 0))
        try:
            return np.loadtxt(
                map(self._with_points, self.lines.values()),
                delimiter=self.delimiter,
                usecols=columns,
                ndmin=2,
                comments=None,
                quotechar='"',
            )
        except ValueError:
            for column in columns:
                self._check_numbers(column)
            raise

    def _with_points(self, text: str) -> str:
        return text if self.delimiter == "," else text.replace(",", ".")

    def _check_numbers(self, column: int) -> None:
        for line, cell in zip(self.lines, self.cells(column), strict=True):
            if not _is_number(self._with_points(cell)):
                holds = f"holds {cell!r}" if cell else "is empty"
                raise BagError(
                    f"{self.path}: column {self.header[column]!r} {holds} on line {line}, where a feature "
                    "has a number. Correct the cell, or remove the column if it is no feature."
                )


def read_table(path: Path) -> FeatureTable:
    """The lines of a table.

    Raises:
        BagError: it is no text, has no rows, one that is longer or shorter than the header, or two
            columns of one name.
    """
    delimiter, header = read_header(path)
    text = path.read_text(encoding="utf-8-sig").splitlines()
    lines = {
        number: line for number, line in enumerate(text[1:], 2) if line.strip(f"{delimiter} \t")
    }
    for number, line in lines.items():
        n_cells = line.count(delimiter) + 1
        if n_cells != len(header) and '"' in line:
            n_cells = len(next(csv.reader([line], delimiter=delimiter)))
        if n_cells != len(header):
            raise BagError(
                f"{path}: {len(header)} columns in the header, {n_cells} below it, on line {number}. Write "
                "as many cells in each line."
            )
    if twice := next((name for name in header if name and header.count(name) > 1), ""):
        raise BagError(f"{path}: column {twice!r} comes twice. Rename one, or remove it.")
    if not lines:
        raise BagError(f"{path}: has no rows below its header. There is nothing to learn from it.")
    return FeatureTable(path, delimiter, header, lines)


def read_features(
    table: FeatureTable,
    others: Collection[int],
    facts: SourceFacts,
    bag_of: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.float64], str]:
    """(n, D) the features of a table, and the names of their columns.

    Args:
        table: with its cells.
        others: columns that are no features.
        facts: with patterns of columns that are features whatever they look like.
        bag_of: (n,) the number of the bag of each row; one bag if not given.

    Raises:
        BagError: a column is none by its name or its values, or a cell is no number.
    """
    columns = [i for i in range(len(table.header)) if i not in others]
    names = [table.header[i] for i in columns]
    for_certain = doubtful_columns(names, trusted=facts.feature_columns)
    if refusal := refusal_of_columns(for_certain):
        raise BagError(f"{table.path}: {refusal}")
    values = table.numbers(columns)
    doubtful = doubtful_columns(names, values, bag_of, trusted=facts.feature_columns)
    if refusal := refusal_of_columns(doubtful):
        raise BagError(f"{table.path}: {refusal}")
    return values, name_columns(names)


def read_csv(path: Path, facts: SourceFacts) -> ForeignBag:
    """A table with columns x and y; every other column is a feature."""
    _, header = read_csv_header(path)
    table = read_table(path)
    xy = [header.index(match_column(path, header, meaning)) for meaning in ("x", "y")]
    features, names = read_features(table, xy, facts)
    return ForeignBag(
        features=features,
        coords=table.numbers(xy),
        unit=facts.unit or "px",
        recipe={"columns": names},
    )


def read_csv_header(path: Path) -> tuple[str, list[str]]:
    """Delimiter and header of a table with x and y."""
    delimiter, header = read_header(path)
    for meaning in ("x", "y"):
        match_column(path, header, meaning)
    return delimiter, header


def read_header(path: Path) -> tuple[str, list[str]]:
    """Delimiter and header of a table.

    Raises:
        BagError: the file is no text.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline(1 << 20)
    except UnicodeDecodeError as error:
        raise BagError(f"{path}: not a text table. Save it as CSV UTF-8.") from error
    delimiter = max(DELIMITERS, key=first.count)
    return delimiter, [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
