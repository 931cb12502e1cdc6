"""How a table is read where its own words do not suffice. Nothing that takes time is imported."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from features.stored import part_of_stored


@dataclass(frozen=True, kw_only=True)
class TableReading:
    """What a table's names and words mean.

    Attributes:
        case_from: a pattern that finds the case in a name of the column case; empty to take the whole name.
        label_is: labels that read like a word for a missing value and are meant.
    """

    PANEL: ClassVar[str] = "Table"

    case_from: str = field(
        default="",
        metadata={
            "help": "A regular expression that finds the patient in the names of the column case, where "
            "these are slides or blocks: its first group, or the whole match. 'TCGA-..-....' groups barcodes."
        },
    )
    label_is: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Labels that read like a word for a missing value and are meant, as NA or none, with "
            "commas between.",
            "split": ",",
        },
    )

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "TableReading":
        """The reading that the settings of a run or a verb describe."""
        return part_of_stored(cls, settings)


AS_WRITTEN = TableReading()
