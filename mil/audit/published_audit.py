"""The audit of a published table of results: whether its numbers can be true of any cases."""

from dataclasses import dataclass
from pathlib import Path

from mil.audit.consistency import Finding, check_published
from mil.audit.published import read_published


@dataclass(frozen=True, kw_only=True)
class TableAudit:
    """The findings of an audit of a table.

    Attributes:
        title: the table's file.
        n_rows: of the table.
        findings: what contradicts what, and remarks.
        unread: columns that no rule reads.
    """

    title: str
    n_rows: int
    findings: tuple[Finding, ...]
    unread: tuple[str, ...]

    @property
    def impossible(self) -> int:
        """How many rows cannot be true."""
        return len({finding.line for finding in self.findings if finding.impossible})

    @property
    def verdict(self) -> str:
        """Whether the numbers can be true, as a sentence."""
        if self.impossible:
            return f"{self.impossible} of {self.n_rows} rows cannot be true of any cases."
        noun = "row" if self.n_rows == 1 else "rows"
        return f"{self.n_rows} {noun}, none impossible: the numbers can be true of the same cases."


def audit_published(path: Path) -> TableAudit:
    """Read a published table and check each row.

    Raises:
        CohortError, RunError: the table cannot be read, or no rule reads any of its columns.
    """
    table = read_published(path)
    return TableAudit(
        title=path.name,
        n_rows=len(table.rows),
        findings=check_published(table.rows),
        unread=tuple(table.unread),
    )
