"""`mil protocol`: published studies, looked up and rerun."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from cli.app import Group, app
from cli.flags import use_flags
from cli.options import verb, writable, wrong_use
from cli.parameters import flags_of
from cli.volumes import SeriesReading
from features.errors import InputError
from mil.data.reading import TableReading

if TYPE_CHECKING:
    from mil.protocols.arm import Arm
    from mil.protocols.protocol import Protocol
    from mil.protocols.run import ProtocolResult

TESTS = {
    "folds": "held-out cases",
    "tiles": "other tiles",
    "fields": "other fields",
    "external": "split=test",
    "ensemble": "split=test, by the networks of all folds",
}

PASSED_ON = (
    "out", "slides", "annotations", "slide_mpp", "roi", "cases", "device", "workers", "overwrite",
    "case_from", "label_is", "known_at_diagnosis",
)  # fmt: skip

studies = typer.Typer(
    name="protocol",
    cls=Group,
    help="Repeat published studies: their settings and printed results.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(studies)


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """`mil protocol list` has no settings."""


@dataclass(frozen=True, kw_only=True)
class ShowOptions:
    """Settings of `mil protocol show`."""

    name: str = field(metadata={"argument": "NAME", "help": "A name of `mil protocol list`."})


@dataclass(frozen=True, kw_only=True)
class RunOptions(TableReading, SeriesReading):
    """Settings of `mil protocol run`."""

    name: str = field(metadata={"argument": "NAME", "help": "A name of `mil protocol list`."})
    cohort: Path = field(
        metadata={
            "argument": "COHORT.csv",
            "help": "Table with case, slide and label; for a study on CT or MRI a table of series, as "
            "`mil volumes table` writes it, with label.",
        }
    )
    slides: Path | None = field(default=None, metadata={"help": "Folder with the table's slides."})
    out: Path = field(metadata={"help": "The folder to write."})
    annotations: Path | None = field(
        default=None,
        metadata={
            "help": "Folder with <slide>.geojson from QuPath; without it, all tissue is used."
        },
    )
    set: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Change a setting of the study, as in extract.weights=random, or the labels of a "
            "question; repeatable. The result lists the changes."
        },
    )
    slide_mpp: float | None = field(
        default=None,
        metadata={"help": "Micrometres per level-0 pixel, where the slides do not say."},
    )
    device: str = field(
        default="auto",
        metadata={"help": "`auto`, `cpu`, `cuda` or `cuda:1`.", "panel": "Computing"},
    )
    workers: int = field(
        default=0, metadata={"help": "Threads; 0 is one per core.", "panel": "Computing"}
    )
    overwrite: bool = field(
        default=False, metadata={"help": "Replace a finished run.", "once": True}
    )


@verb(studies, ListOptions, examples=["mil protocol list"])
def list_(options: ListOptions) -> None:
    """List the studies that can be repeated."""
    del options
    from cli.console import say, show_table
    from mil.protocols.protocol import load_protocol, protocol_names

    protocols = [load_protocol(name) for name in protocol_names()]
    show_table(["name", "arms"], [[study.name, str(len(study.arms))] for study in protocols])
    say("")
    for study in protocols:
        say(f"{study.name}: {study.title}. {study.source}.")


@verb(studies, ShowOptions, examples=["mil protocol show usta-phase1"])
def show(options: ShowOptions) -> None:
    """Show what a study did and printed, which settings its source states and which were chosen here."""
    from mil.protocols.protocol import load_protocol

    with wrong_use():
        protocol = load_protocol(options.name)
    _show_protocol(protocol)


def _classifier(arm: "Arm") -> str:
    """What an arm learns, in words."""
    if arm.segments:
        return {"unet": "mask by U-Net", "map": "mask by linear head", "both": "mask by both"}[
            arm.segmenter
        ]
    if arm.shows:
        modalities = " and ".join(", ".join(channels) for channels in arm.shows)
        return f"{arm.model or 'of single slices'}: {modalities}"
    return (arm.model or "of single tiles") + (f" on {arm.region} tiles" if arm.region else "")


def _show_protocol(protocol: "Protocol") -> None:
    """Print the arms of a study, and where its settings come from."""
    from cli.console import say, show_table
    from mil.protocols.protocol import measure_words

    say(f"{protocol.title}\n{protocol.source}\nOn {protocol.published_on}.\n")
    show_table(
        ["arm", "backbone", "classifier", "weights", "tested on", "printed"],
        [
            [
                arm.name,
                arm.backbone,
                _classifier(arm),
                "frozen" if not arm.finetune else f"trained from {arm.start or 'published'}",
                TESTS[arm.test],
                ", ".join(
                    f"{measure_words(arm, name)} {value:g}" for name, value in arm.published.items()
                ),
            ]
            for arm in protocol.arms
        ],
    )
    if protocol.defects:
        say("\nWhat does not fit together in the printed figures")
        for sentence in protocol.defects:
            say(f"  {sentence}")
    for name, question in protocol.questions.items():
        say(f"\nLabels of question {name}, in any spelling; * is any other")
        for group, labels in question.items():
            say(f"  {group}: {', '.join(labels)}")
    for title, reasons in (
        ("Stated by the source", protocol.from_source),
        ("Chosen here", protocol.chosen_here),
    ):
        say(f"\n{title}")
        for key, reason in reasons.items():
            section, name = key.split(".")
            value = protocol.settings.get(section, {}).get(name)
            say(f"  {key}{'' if value is None else f' = {value}'}: {reason}")


@verb(
    studies,
    RunOptions,
    examples=[
        "mil protocol run usta-phase1 cohort.csv --slides slides --annotations annotations --out trial "
        "--set extract.weights=random --set extract.max_tiles=20 --set fit.epochs=2 "
        "--set arms.backbone=test_resnet --set arms=ResNet50V2",
    ],
)
def run(options: RunOptions) -> None:
    """Repeat a study on your own slides; printed and measured figures stand side by side.

    Without --set everything is done as in the study, with published weights. The same command continues an
    interrupted run.
    """
    from cli.console import Bars, say
    from mil.api.studies import run_protocol
    from mil.protocols.protocol import load_protocol, with_changes

    with wrong_use():
        study = load_protocol(options.name)
        use_flags(flags_of(fields(RunOptions)) | _setting_flags(study))
        with_changes(study, options.set).check()
    writable(options.out)
    with wrong_use(InputError):
        result = run_protocol(
            options.name,
            options.cohort,
            changes=options.set,
            progress=Bars(),
            notify=say,
            **{name: getattr(options, name) for name in PASSED_ON},
        )
    _show_result(result)
    say(f"Results: {options.out / 'results.csv'}")


def _setting_flags(study: "Protocol") -> dict[str, str]:
    """How the settings of a study are changed, by their names; those of two sections are left out."""
    from mil.protocols.protocol import KINDS

    of = [(one.name, section) for section in study.settings for one in fields(KINDS[section])]
    names = [setting for setting, _ in of] + [one.name for one in fields(RunOptions)]
    return {
        setting: f"--set {section}.{setting}="
        for setting, section in of
        if names.count(setting) == 1
    }


def _show_result(result: "ProtocolResult") -> None:
    """Printed and measured figures side by side, and how far they may be compared."""
    from cli.console import say, show_table, warn
    from mil.evaluation.display import state_p

    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.2f}"

    def measured(row: "dict[str, Any]") -> str:
        limits = "" if row["low"] is None else f" ({row['low']:.2f} to {row['high']:.2f})"
        return number(row["measured"]) + limits

    def arm(row: "dict[str, Any]") -> str:
        other = "arms.backbone" in result.protocol.changed
        return f"{row['arm']}, here {row['backbone']}" if other else str(row["arm"])

    say("")
    show_table(
        ["arm", "measure", "printed", "here"],
        [
            [arm(row), row["words"], number(row["published"]), measured(row)]
            for row in result.rows()
        ],
    )
    n_pairs = len(result.pairs)
    for pair in result.pairs:
        say(
            f"{pair.first} against {pair.second}, case by case: {pair.only_first} cases right in the first "
            f"only, {pair.only_second} in the second only; exact McNemar {state_p(pair.p)}"
            + (f", {state_p(pair.p_holm)} over the {n_pairs} pairs." if n_pairs > 1 else ".")
        )
    for sentence in result.limitations():
        warn(sentence)
    protocol = result.protocol
    say(
        f"{len(protocol.chosen_here)} settings are not stated by the source: "
        f"`mil protocol show {protocol.name}`."
    )
