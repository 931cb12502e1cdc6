"""The page of a run: the frame with the facts of every run, and the sections of its task."""

from pathlib import Path
from typing import Any

from features.files.atomic import write_atomic
from mil.errors import RunError
from mil.evaluation.words import fit_words
from mil.report.facts import page_values
from mil.report.sections import Report, load_sections
from mil.report.template import render_template


def render(report: Report[Any, Any, Any]) -> str:
    """The page as one HTML document."""
    sections = load_sections(report.page)(report)
    page = render_template(
        sections.template,
        **page_values(report.facts, sections.groups),
        report=report,
        evaluation=report.evaluation,
        repeats=len(report.evaluation.repeats),
        verdict=sections.verdict(),
        beats_guessing=sections.beats_guessing,
        headline=sections.headline(),
        limits=sections.limitations(),
        **sections.values(),
    )
    return fit_words(page, report.facts.recipe.get("region"))


def write_report(report: Report[Any, Any, Any], path: Path) -> None:
    """Write the page, and beside it the figures as files for a paper.

    Raises:
        RunError: the path is a folder.
    """
    if path.is_dir():
        raise RunError(f"{path} is a folder. Name the page, as {path / 'report.html'}.")
    sections = load_sections(report.page)(report)
    write_atomic(path, render(report))
    sections.write_figures(path.parent / sections.folder)
