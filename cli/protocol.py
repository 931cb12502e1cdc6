"""`mil protocol`: published studies, looked up and rerun."""

import csv
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from cli.app import app
from cli.extract import SlideOptions, jobs_of
from cli.options import plain, verb, writable, wrong_use

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mil.data.cohort import Row
    from mil.evaluation.comparison import PairTest
    from mil.protocols.protocol import Protocol
    from mil.protocols.rerun import ArmResult

studies = typer.Typer(
    name="protocol",
    help="Published studies as settings and printed results: list, show, run.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(studies)

COLUMNS = ("arm", "backbone", "measure", "published", "measured", "low", "high", "cases", "tiles")


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """`mil protocol list` has no settings."""


@dataclass(frozen=True, kw_only=True)
class ShowOptions:
    """Settings of `mil protocol show`."""

    name: str = field(metadata={"argument": "NAME", "help": "A name of `mil protocol list`."})


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Settings of `mil protocol run`."""

    name: str = field(metadata={"argument": "NAME", "help": "A name of `mil protocol list`."})
    cohort: Path = field(
        metadata={"argument": "COHORT.csv", "help": "Table with case, slide and label."}
    )
    slides: Path = field(metadata={"help": "Folder with the table's slides."})
    out: Path = field(metadata={"help": "The folder to write."})
    annotations: Path | None = field(
        default=None,
        metadata={"help": "Folder with <slide>.geojson from QuPath; without it, tissue."},
    )
    set: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Change a setting of the study, as in extract.weights=random; repeatable. The result "
            "says what was changed."
        },
    )
    slide_mpp: float | None = field(
        default=None,
        metadata={"help": "Micrometres per level-0 pixel, where the slides do not say."},
    )
    device: str = field(default="auto", metadata={"help": "`auto`, `cpu`, `cuda` or `cuda:1`."})
    workers: int = field(default=0, metadata={"help": "Threads; 0 is one per core."})
    overwrite: bool = field(
        default=False, metadata={"help": "Replace a finished run.", "once": True}
    )


@verb(studies, ListOptions, examples=["mil protocol list"])
def list_(options: ListOptions) -> None:
    """The studies there are."""
    del options
    from cli.console import say, show_table
    from mil.protocols.protocol import load, names

    known = [load(name) for name in names()]
    show_table(["name", "arms"], [[each.name, str(len(each.arms))] for each in known])
    say("")
    for each in known:
        say(f"{each.name}: {each.title}. {each.source}.")


@verb(studies, ShowOptions, examples=["mil protocol show usta-phase1"])
def show(options: ShowOptions) -> None:
    """What a study did and printed, which settings its source states and which were chosen here."""
    from cli.console import say, show_table
    from mil.protocols.protocol import MEASURES, load

    with wrong_use():
        protocol = load(options.name)
    say(f"{protocol.title}\n{protocol.source}\nOn {protocol.published_on}.\n")
    show_table(
        ["arm", "backbone", "weights", "tested on", "printed"],
        [
            [
                arm.name,
                arm.backbone,
                "frozen" if not arm.finetune else f"trained from {arm.start or 'published'}",
                {"folds": "held-out cases", "tiles": "other tiles", "external": "split=test"}[
                    arm.test
                ],
                ", ".join(f"{MEASURES[name]} {value:.2f}" for name, value in arm.published.items()),
            ]
            for arm in protocol.arms
        ],
    )
    for title, reasons in (
        ("Stated by the source", protocol.stated),
        ("Chosen here", protocol.ours),
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
    """Do what a study did on your own slides; printed and measured figures side by side.

    Without --set it is done as the study did it, with published weights. An interrupted run is taken up by
    the same command.
    """
    from cli.console import Bars, say
    from features.backbones.registry import resolve_name
    from mil.data.cohort import read_table
    from mil.errors import ProtocolError
    from mil.evaluation.comparison import compare
    from mil.evaluation.predictions import write_predictions
    from mil.finetune.distributed import ranks
    from mil.protocols.protocol import changed, load
    from mil.protocols.rerun import Rerun, together
    from mil.runs.files import write_json
    from mil.runs.record import finish_run, start_run

    with wrong_use():
        protocol = changed(load(options.name), options.set)
        protocol.check()
        for arm in protocol.arms:
            resolve_name(arm.backbone)
    jobs = jobs_of(
        SlideOptions(
            inputs=(options.cohort,),
            out=options.out,
            slides=options.slides,
            annotations=options.annotations,
            slide_mpp=options.slide_mpp,
        )
    )
    rows = read_table(options.cohort)
    if without := [row.slide for row in rows if not row.label]:
        raise ProtocolError(
            f"{len(without)} slides have no label, e.g. {without[0]}. Fill the column."
        )
    writable(options.out)
    results: list[ArmResult] = []
    with ranks(options.device) as one:
        rerun = Rerun(
            protocol=protocol,
            rows=rows,
            jobs=jobs,
            out=options.out,
            ranks=one,
            workers=options.workers,
            progress=Bars(),
        )
        for arm in protocol.arms:
            rerun.parts(arm)  # what the cohort cannot carry is told before any work
        held = start_run(
            options.out,
            "protocol",
            plain(options),
            {"protocol": asdict(protocol), "labels": {row.case: row.label for row in rows}},
            overwrite=options.overwrite,
        )
        say(f"{protocol.title}. {protocol.source}.")
        for result in rerun.results():
            results.append(result)
            say(_line(result))
    predictions = together(results)
    pairs: list[PairTest] = []
    if predictions is not None:
        write_predictions(options.out / "predictions.csv", predictions)
        if protocol.compare and set(protocol.compare) <= set(predictions.models):
            pairs = [
                test
                for test in compare(predictions)
                if {test.first, test.second} == set(protocol.compare)
            ]
    _write(options.out, results)
    write_json(options.out / "comparison.json", [pair.to_json() for pair in pairs])
    finish_run(held)
    _tell(protocol, rows, results, pairs)
    say(f"Results: {options.out / 'results.csv'}")


def _line(result: "ArmResult") -> str:
    """One arm, as soon as it is done."""
    speed = result.n_tiles / result.seconds if result.seconds else 0.0
    return (
        f"{result.arm.name}: {result.n_tiles} tiles of {result.n_cases} cases tested, "
        f"accuracy {result.measures['accuracy']:.2f} over tiles; embedded at {speed:.1f} tiles/s, "
        f"{result.seconds / result.n_cases:.1f} s a case."
    )


def _rows(results: "Sequence[ArmResult]") -> list[dict[str, Any]]:
    """Every measure of every arm, printed and measured."""
    return [
        {
            "arm": result.arm.name,
            "backbone": result.arm.backbone,
            "measure": name,
            "published": result.arm.published.get(name),
            "measured": value,
            "low": result.intervals.get(name, (None, None))[0],
            "high": result.intervals.get(name, (None, None))[1],
            "cases": result.n_cases,
            "tiles": result.n_tiles,
        }
        for result in results
        for name, value in result.measures.items()
    ]


def _write(out: Path, results: "Sequence[ArmResult]") -> None:
    from features.files.atomic import atomic_path

    with atomic_path(out / "results.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(_rows(results))


def _tell(
    protocol: "Protocol",
    rows: "Sequence[Row]",
    results: "Sequence[ArmResult]",
    pairs: "Sequence[PairTest]",
) -> None:
    """Printed and measured side by side, and how far that may be read."""
    from cli.console import say, show_table, warn
    from mil.protocols.protocol import MEASURES

    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.2f}"

    def measured(row: "dict[str, Any]") -> str:
        limits = "" if row["low"] is None else f" ({row['low']:.2f} to {row['high']:.2f})"
        return number(row["measured"]) + limits

    def ran(row: "dict[str, Any]") -> str:
        other = "arms.backbone" in protocol.changed
        return f"{row['arm']}, here {row['backbone']}" if other else str(row["arm"])

    say("")
    show_table(
        ["arm", "measure", "printed", "here"],
        [
            [ran(row), MEASURES[row["measure"]], number(row["published"]), measured(row)]
            for row in _rows(results)
        ],
    )
    for pair in pairs:
        say(
            f"{pair.first} against {pair.second}, case by case: {pair.only_first} cases right in the first "
            f"only, {pair.only_second} in the second only; exact McNemar p {pair.p:.3f}."
        )
    cases = {row.case: row.label for row in rows}
    warn(
        f"The data differ: printed was measured on {protocol.published_on}; here are {len(cases)} cases of "
        f"{len(set(cases.values()))} classes. A difference says nothing about either."
    )
    warn("Measures over tiles have no interval: tiles of one case are not independent.")
    if any(result.arm.test == "tiles" for result in results):
        warn(
            "Other tiles of cases that were trained on show how well cases are remembered, not diagnosed."
        )
    if protocol.changed:
        changes = ", ".join(f"{key}={value}" for key, value in protocol.changed.items())
        warn(f"Changed from the study: {changes}.")
    say(
        f"{len(protocol.ours)} settings are not stated by the source: `mil protocol show {protocol.name}`."
    )
