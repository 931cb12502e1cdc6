"""`mil concepts`: what recurs among the tiles of a run's cohort."""

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
        default=None, metadata={"help": "Folder with the slides; tiles are grey without it."}
    )
    concepts: int = field(default=12, metadata={"help": "How many clusters of tiles to find."})
    seed: int = field(default=0, metadata={"help": "Of the tiles drawn and the first centres."})
    store: Path | None = field(default=None, metadata=MOVED_STORE)
    cohort: Path | None = field(default=None, metadata=MOVED_COHORT)

    def __post_init__(self) -> None:
        if self.concepts < 2:
            raise UsageError(f"--concepts {self.concepts}: at least 2 can be told apart.")


@verb(app, ConceptOptions, examples=["mil concepts run --slides slides --out concepts"])
def concepts(options: ConceptOptions) -> None:
    """Show what the backbone tells apart: clusters of tiles, their share per case, their weight per class.

    How well the shares alone diagnose is measured by the run's own folds, with clusters of the training
    cases only; the clusters that are shown are of all cases.
    """
    from cli.console import say
    from cli.inputs import slide_files
    from mil.concepts.find import find_concepts
    from mil.concepts.page import write_concepts
    from mil.evaluation.classification.evaluate import evaluate
    from mil.runs.run import open_run

    writable(options.out)
    found_files = slide_files(options.slides) if options.slides else {}
    run = open_run(options.run, store=options.store, cohort=options.cohort)
    if run.task == "survival" or run.settings.finetunes:
        raise UsageError(
            f"{run.path}: concepts need classes, and bags by one backbone. Give a run of `mil crossval` on "
            "labels without --finetune."
        )
    cohort, folds = run.cohort(), run.folds
    found = find_concepts(cohort, folds, n_concepts=options.concepts, seed=options.seed)
    random = run.random_backbone
    title = run.title
    page = write_concepts(options.out, found, found_files, title=title, random=random)
    [result] = evaluate(found.predictions).models
    say(
        f"Shares of {options.concepts} concepts alone name the class of {result.correct:.4g} of {result.n} "
        f"cases out of fold. Page: {page.absolute()}"
    )
