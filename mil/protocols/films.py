"""The volumes of a study's arms, laid out as films, once for every choice of modalities."""

from dataclasses import dataclass, field
from pathlib import Path

from features.extraction.films import film_jobs, lay_out_films
from features.extraction.jobs import SlideJob
from features.files.checksum import fingerprint
from features.progress import Progress
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
    """

    table: VolumeTable
    folder: Path
    progress: Progress
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
            self._jobs[recipe.channels] = film_jobs(films)
        return self._jobs[recipe.channels]
