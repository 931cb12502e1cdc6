"""The volumes of a study's arms, laid out as films, once for every choice of modalities."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from features.extraction.films import FilmOutcome, film_jobs, lay_out_films
from features.extraction.jobs import SlideJob
from features.files.checksum import fingerprint
from features.progress import Notify, Progress
from features.summary import note_lines
from features.volumes.recipe import VolumeRecipe
from mil.data.volumes import VolumeTable
from mil.errors import FitError


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

    def jobs(self, recipe: VolumeRecipe) -> tuple[SlideJob, ...]:
        """The films of all volumes, as slides of their cases; they are laid out by the first who asks.

        Raises:
            FitError: a volume cannot be laid out.
        """
        if recipe.channels not in self._jobs:
            layout = fingerprint(recipe.to_json())[:8]
            folder = self.folder / f"{'+'.join(recipe.channels)}-{layout}"
            films = lay_out_films(self.table.jobs, recipe, folder, self.progress)
            for film in films:
                if film.status == "failed":
                    raise FitError(film.reason)
            self._note(films)
            self._jobs[recipe.channels] = film_jobs(films)
        return self._jobs[recipe.channels]

    def _note(self, films: Sequence[FilmOutcome]) -> None:
        """Say what was assumed, unless it was for other modalities."""
        for line in note_lines((film.name, film.notes) for film in films):
            if line not in self._notified:
                self._notified.add(line)
                self.notify(line)
