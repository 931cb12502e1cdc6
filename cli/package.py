"""`mil package` and `mil card`: a model for another machine, and what it is."""

from dataclasses import dataclass, field
from pathlib import Path

from cli.app import app
from cli.options import verb, writable


@dataclass(frozen=True, kw_only=True)
class PackageOptions:
    """Settings of `mil package`."""

    run: Path = field(
        metadata={"argument": "RUN", "help": "A finished run of `mil crossval` or `mil train`."}
    )
    out: Path = field(metadata={"help": "The new folder to write."})
    model: str | None = field(
        default=None, metadata={"help": "The model of the run; its best if not given."}
    )
    segmenter: Path | None = field(
        default=None,
        metadata={
            "help": "A segmenter.safetensors of `mil segment`, that finds the tumour of new slides."
        },
    )


@dataclass(frozen=True, kw_only=True)
class CardOptions:
    """Settings of `mil card`."""

    path: Path = field(
        metadata={
            "argument": "RUN-or-PACKAGE",
            "help": "A finished run, or a folder that `mil package` wrote.",
        }
    )
    model: str | None = field(
        default=None, metadata={"help": "The model of the run; its best if not given."}
    )


@verb(
    app,
    PackageOptions,
    examples=[
        "mil package run --out sarcoma-model",
        "mil package run --out sarcoma-model-2 --segmenter segmenter/segmenter.safetensors",
    ],
)
def package(options: PackageOptions) -> None:
    """Pack a model into a folder that answers for new slides on another machine, without a network.

    The folder holds the fits, facts of the training slides to compare new ones with, the predictions out of
    fold that sets are judged by, the encoder where its licence allows it, and a card. Cases are named by
    fingerprints. `mil predict FOLDER SLIDE...` reads it like a run.
    """
    from cli.console import complain, say
    from mil.api.run import open_run

    writable(options.out)
    run = open_run(options.run)
    packed = run.package(options.out, model=options.model or "", segmenter=options.segmenter)
    for note in packed.notes:
        complain(note)
    size = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file())
    say(f"Package: {options.out} ({size / 1e6:.1f} MB). Next: mil card {options.out}")


@verb(app, CardOptions, examples=["mil card run", "mil card sarcoma-model"])
def card(options: CardOptions) -> None:
    """Show what a model is for, what it learnt from, its cross-validated performance, and its limits."""
    from cli.console import say
    from mil.api.slides import read_card

    say(read_card(options.path, options.model or ""))
