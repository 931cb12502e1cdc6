"""`mil concepts`: recurring kinds of tiles in a run's cohort."""

from dataclasses import dataclass, field
from pathlib import Path

from cli.app import app
from cli.options import UsageError, verb, writable
from cli.runs import MOVED_COHORT, MOVED_STORE


@dataclass(frozen=True, kw_only=True)
class ConceptOptions:
    """Settings of `mil concepts`."""

    run: Path = field(metadata={"argument": "RUN", "help": "A finished run of `mil crossval`."})
    out: Path = field(metadata={"help": "Folder for the page and its tables."})
    slides: Path | None = field(
        default=None, metadata={"help": "Folder with the slides; without it, tiles are grey."}
    )
    concepts: int = field(
        default=12, metadata={"help": "Number of clusters of tiles.", "parameter": "n_concepts"}
    )
    seed: int = field(
        default=0, metadata={"help": "Seed of the sampled tiles and the initial centres."}
    )
    store: Path | None = field(default=None, metadata=MOVED_STORE)
    cohort: Path | None = field(default=None, metadata=MOVED_COHORT)

    def __post_init__(self) -> None:
        if self.concepts < 2:
            raise UsageError(f"--concepts {self.concepts}: use 2 or more.")


@verb(app, ConceptOptions, examples=["mil concepts run --slides slides --out concepts"])
def concepts(options: ConceptOptions) -> None:
    """Show what the backbone distinguishes: clusters of tiles, their share in each case and their weight.

    How well the shares alone diagnose is measured on the run's own folds, with clusters of the training
    cases only. The clusters on the page come from all cases.
    """
    from cli.console import say
    from cli.inputs import slide_files
    from mil.api.run import open_run

    writable(options.out)
    slide_files(options.slides)
    run = open_run(options.run, store=options.store, cohort=options.cohort)
    concepts = run.concepts(
        options.out, slides=options.slides, n_concepts=options.concepts, seed=options.seed
    )
    say(
        f"Shares of {options.concepts} concepts alone name the {run.task.group} of "
        f"{concepts.result.correct:.4g} of {concepts.result.n} cases out of fold. "
        f"Page: {concepts.page.absolute()}"
    )
