"""`mil demo`: the whole job on a cohort that is drawn on the spot."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from cli.app import app
from cli.options import verb

MODELS = ("majority", "tile-vote", "mean", "abmil")


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Settings of `mil demo`."""

    out: Path = field(default=Path("demo"), metadata={"help": "Folder to write everything into."})
    cases: int = field(default=5, metadata={"help": "Cases per subtype; there are four subtypes."})
    side: int = field(default=4096, metadata={"help": "Width and height of a slide in pixels."})
    backbone: str = field(default="resnet18", metadata={"help": "Backbone, with random weights."})
    seed: int = field(default=0, metadata={"help": "Seed of the slides and of everything after."})


@verb(app, DemoOptions, examples=["mil demo --out demo"])
def demo(options: DemoOptions) -> None:
    """Draw a cohort of sarcoma-like slides and run the whole job on it, offline, with random weights.

    Slides and annotations, bags, cross-validation, heatmap and report are left in the folder to look at.
    """
    from cli.console import say
    from cli.explain import ExplainOptions, explain
    from cli.report import ReportOptions, run_report

    started = time.perf_counter()
    out, run = options.out, options.out / "run"
    say("1/5 Draw slides and annotations")
    table = _draw_cohort(out, options.cases, options.side, options.seed)
    say("2/5 Embed every tumour tile (mil extract)")
    _extract(table, out, options.backbone, options.seed)
    say("3/5 Cross-validate (mil crossval)")
    _cross_validate(table, out, options.cases, options.seed)
    say("4/5 Explain one slide (mil explain)")
    explain(ExplainOptions(run=run, input=out / "store" / "case-01-s1.h5", out=out / "explained"))
    say("5/5 Report (mil report)")
    run_report(ReportOptions(run=run))
    say(f"Done in {time.perf_counter() - started:.0f} s.")


def _draw_cohort(out: Path, cases: int, side: int, seed: int) -> Path:
    """Write slides and annotations; the path of their table."""
    from cli.console import Bars
    from features.synthetic import CohortSpec, write_cohort

    spec = CohortSpec(cases_per_class=cases, side_px=side, seed=seed)
    with Bars().task("slides drawn", 4 * cases, "slides") as advance:
        return write_cohort(out, spec, progress=advance)


def _extract(table: Path, out: Path, backbone: str, seed: int) -> None:
    """Make the bags; ends the demo where one fails."""
    from cli.extract import ExtractOptions, run_extract

    options = ExtractOptions(
        inputs=(table,),
        slides=out / "slides",
        annotations=out / "annotations",
        out=out / "store",
        backbone=backbone,
        weights="random",
        seed=seed,
    )
    if run_extract(options):
        raise SystemExit(1)


def _cross_validate(table: Path, out: Path, folds: int, seed: int) -> None:
    """Write the run folder."""
    from cli.learn import CrossvalOptions, run_crossval

    run_crossval(
        CrossvalOptions(
            cohort=table,
            store=out / "store",
            out=out / "run",
            models=MODELS,
            folds=str(folds),
            seed=seed,
            overwrite=True,
        )
    )
