"""What `mil volumes` has found and written, printed."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from features.volumes.listing import ListedSeries
    from mil.contouring.application import AppliedContours
    from mil.contouring.run import Contoured
    from mil.data.volumes import VolumeExtraction
    from mil.radiomics.bags import RadiomicsBags

NAMES_SHOWN = 30  # features


def show_series(rows: "tuple[ListedSeries, ...]") -> int:
    """Print what was listed; the number of rows with a problem."""
    from cli.console import show_table

    modalities = list(dict.fromkeys(row.modality for row in rows))
    lines = []
    for modality in modalities:
        own = [row for row in rows if row.modality == modality]
        cases = len({row.case for row in own})
        masks = sum(row.mask is not None for row in own)
        lines.append([modality, str(len(own)), str(cases), str(masks)])
    show_table(["modality", "series", "cases", "with a region"], lines)
    return sum(bool(row.problems) for row in rows)


def show_volumes(result: "VolumeExtraction", out: Path) -> None:
    """Print how many volumes have bags, notes on them, and why others failed."""
    from cli.console import complain, counted, say, warn
    from features.summary import note_lines

    done = [film for film in result.films if film.facts]
    slices = sum(len(film.facts) for film in done if film.facts)
    before = sum(film.status == "skipped" for film in done)
    known = f"; {before} were laid out before" if before else ""
    say(f"{counted(len(done), 'volume')} with {counted(slices, 'slice')}{known}. Bags: {out}")
    for line in note_lines((film.name, film.notes) for film in done):
        warn(line)
    for reason in result.failed:
        complain(reason)
    if result.failed:
        table = out / "films" / "films.csv"
        complain(f"{len(result.failed)} of {counted(len(result.films), 'volume')} failed: {table}")
    if done:
        say(f"Next: mil crossval {result.cohort} {out}")


def show_contours(contoured: "Contoured") -> None:
    """Print what was trained on, where the masks are, and why volumes have none."""
    from cli.console import counted, say

    regions = ", ".join(f"{name} ({counted(n, 'volume')})" for name, n in contoured.regions)
    say(f"Trained on: {regions}")
    if contoured.undrawn:
        say(f"Contoured and not judged, as nothing is drawn: {', '.join(contoured.undrawn)}")
    _show_masks(contoured.folder, contoured.failed)


def show_applied(applied: "AppliedContours") -> None:
    """Print what a trained network has drawn, where the masks are, and why volumes have none."""
    from cli.console import counted, say, warn
    from features.summary import listed

    say(f"Contoured: {counted(len(applied.drawn), 'volume')}")
    if applied.seen:
        warn(
            f"The network has learnt from the patients of {listed(applied.seen)}: their masks prove nothing, "
            "and are not judged."
        )
    _show_masks(applied.folder, applied.failed)


def _show_masks(folder: Path, failed: "Mapping[str, str]") -> None:
    from cli.console import complain, counted, say

    say(f"Masks: {folder / 'masks'}; the table that names them: {folder / 'volumes.csv'}")
    for name, reason in failed.items():
        complain(f"{name}: {reason}")
    if failed:
        complain(f"{counted(len(failed), 'volume')} failed: {folder / 'outcomes.csv'}")


def show_radiomics(result: "RadiomicsBags", out: Path) -> None:
    """Print which features the bags have, and which cases have none."""
    from cli.console import complain, counted, say, warn
    from features.summary import listed

    if result.others:
        warn(f"Columns that are no features, and are not used: {listed(result.others)}.")
    say(
        f"{counted(len(result.cases), 'case')} with {counted(len(result.names), 'feature')} of "
        f"{result.tool}: {out}"
    )
    few = len(result.names) <= NAMES_SHOWN
    names = ", ".join(result.names) if few else f"{listed(result.names)} ({out / 'features.csv'})"
    say(f"Features: {names}.")
    if result.repeated:
        say(
            f"Agreement of two readings of {counted(result.repeated, 'case')}; no outcome was read."
        )
    if result.left_out:
        say(
            f"{counted(len(result.left_out), 'feature')} left out: {out / 'features.csv'} says why."
        )
    for case, reason in result.incomplete.items():
        complain(f"{case}: {reason}; it has no bag.")
    say(
        f"Next: mil crossval cohort.csv {out} --models pooled-svm,pooled-logistic (slide is the case's name)"
    )
