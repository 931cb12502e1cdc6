"""What stands between the columns of a table of predictions."""

from pathlib import Path


def guess_delimiter(path: Path) -> str:
    """The comma, semicolon or tab of the header: spreadsheets of many countries write semicolons.

    Raises:
        OSError, UnicodeDecodeError: the file cannot be read.
    """
    with path.open(encoding="utf-8-sig") as file:
        return max(",;\t", key=file.readline().count)
