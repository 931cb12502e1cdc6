"""How a table is read where its own words do not suffice. Nothing that takes time is imported."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypedDict

from features.stored import part_of_stored


class TableWords(TypedDict, total=False):
    """What a table's names and words mean.

    Attributes:
        case_from: a regular expression that finds the patient in the names of the column case.
        label_is: labels that read like a word for a missing value and are meant.
        known_at_diagnosis: columns that are known when a case is diagnosed, whatever they are called.
    """

    case_from: str
    label_is: Sequence[str]
    known_at_diagnosis: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class TableReading:
    """What a table's names and words mean.

    Attributes:
        case_from: a pattern that finds the case in a name of the column case; empty to take the whole name.
        label_is: labels that read like a word for a missing value and are meant.
        known_at_diagnosis: columns that are known when a case is diagnosed, whatever they are called and
            however they follow the outcome.
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
    known_at_diagnosis: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Columns that are known when a case is diagnosed although they look like follow-up, as "
            "recurrence_score, with commas between. They may be read by clinical models; the report and the "
            "audit name them.",
            "split": ",",
        },
    )

    def words(self) -> TableWords:
        """The reading as arguments of a function."""
        return TableWords(
            case_from=self.case_from,
            label_is=self.label_is,
            known_at_diagnosis=self.known_at_diagnosis,
        )

    @classmethod
    def of_words(cls, words: TableWords) -> "TableReading":
        """The reading that the arguments of a function describe."""
        return cls(
            case_from=words.get("case_from") or "",
            label_is=tuple(words.get("label_is") or ()),
            known_at_diagnosis=tuple(words.get("known_at_diagnosis") or ()),
        )

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "TableReading":
        """The reading that the settings of a run or a verb describe."""
        return part_of_stored(cls, settings)


AS_WRITTEN = TableReading()
