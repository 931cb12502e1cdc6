"""The check of a cohort as a page."""

from collections import Counter
from pathlib import Path
from urllib.parse import quote

from features.extraction.check import display_row, format_classes
from features.files.atomic import write_atomic
from mil.audit.cohort_check import CohortCheck
from mil.report.template import render_template

URGENCY = ("failed", "excluded", "ready")


def write_check(title: str, result: CohortCheck, folder: Path) -> Path:
    """Write index.html, problems first, beside the pictures of the slides; returns the page."""
    page = folder / "index.html"
    write_atomic(page, render_check(title, result))
    return page


def render_check(title: str, result: CohortCheck) -> str:
    """One HTML page; its pictures lie beside it."""
    return render_template(
        "report/check.html",
        classes=format_classes,
        quote=quote,
        row=display_row,
        title=title,
        summary=result.summary,
        count=Counter(check.status for check in result.checks),
        checks=sorted(
            result.checks, key=lambda check: (URGENCY.index(check.status), not check.notes)
        ),
        label_of=result.label_of,
    )
