"""The volumes of a study's arms, laid out as films, once for every choice of modalities."""

from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from features.errors import FeaturesError
from features.extraction.films import FilmOutcome, film_jobs, lay_out_films
from features.extraction.jobs import SlideJob
from features.files.checksum import fingerprint
from features.progress import Notify, Progress
from features.summary import note_lines
from features.volumes.recipe import VolumeRecipe
from mil.data.volumes import VolumeTable
from mil.errors import FitError
from mil.evaluation.display import format_count


@dataclass(frozen=True, kw_only=True)
class Films:
    """The films of a table; those of other settings, from an earlier run, are not mixed in.

    Attributes:
        table: the volumes.
        folder: for the films, by the modalities that they show.
        progress: shows volumes.
        notify: called with what was assumed of a volume, once.
    """

    table: VolumeTable
    folder: Path
    progress: Progress
    notify: Notify
    _notified: set[str] = field(default_factory=set, repr=False)
    _jobs: dict[tuple[str, ...], tuple[SlideJob, ...]] = field(default_factory=dict, repr=False)

    def lay_out(self, recipe: VolumeRecipe, slides: Set[str]) -> None:
        """Lay out the volumes of some slides, once.

        Raises:
            FitError: volumes cannot be laid out; all are named.
        """
        if recipe.channels in self._jobs:
            return
        layout = fingerprint(recipe.to_json())[:8]
        folder = self.folder / f"{'+'.join(recipe.channels)}-{layout}"
        jobs = [job for job in self.table.jobs if job.name in slides]
        films = lay_out_films(jobs, recipe, folder, self.progress)
        _refuse(recipe, [film.reason for film in films if film.status == "failed"])
        self._note(films)
        self._jobs[recipe.channels] = film_jobs(films)

    def jobs(self, recipe: VolumeRecipe) -> tuple[SlideJob, ...]:
        """The films of the volumes that were laid out so, as slides of their cases."""
        return self._jobs[recipe.channels]

    def check_modalities(self, recipe: VolumeRecipe, slides: Set[str]) -> None:
        """Refuse volumes that lack a modality, before any is read.

        Raises:
            FitError: all are named.
        """
        reasons = []
        for job in self.table.jobs:
            if job.name in slides:
                try:
                    job.files_of(recipe)
                except FeaturesError as error:
                    reasons.append(f"{job.name}: {error}")
        _refuse(recipe, reasons)

    def _note(self, films: Sequence[FilmOutcome]) -> None:
        """Say what was assumed, unless it was for other modalities."""
        for line in note_lines((film.name, film.notes) for film in films):
            if line not in self._notified:
                self._notified.add(line)
                self.notify(line)


def _refuse(recipe: VolumeRecipe, reasons: Sequence[str]) -> None:
    if reasons:
        count = format_count(len(reasons), "volume")
        raise FitError(
            f"{count} cannot be used for {', '.join(recipe.channels)}, and nothing was trained. "
            f"{' '.join(reasons)}"
        )
