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
    from cli.console import Bars, say
    from cli.explain import ExplainOptions, explain
    from cli.extract import ExtractOptions, run_extract
    from cli.learn import CrossvalOptions, run_crossval
    from cli.report import ReportOptions, run_report
    from features.synthetic import CohortSpec, write_cohort

    started = time.perf_counter()
    out = options.out
    spec = CohortSpec(cases_per_class=options.cases, side_px=options.side, seed=options.seed)
    say("1/5 Draw slides and annotations")
    with Bars().task("slides drawn", 4 * options.cases, "slides") as advance:
        table = write_cohort(out, spec, progress=advance)
    say("2/5 Embed every tumour tile (mil extract)")
    failed = run_extract(
        ExtractOptions(
            inputs=(table,),
            slides=out / "slides",
            annotations=out / "annotations",
            out=out / "store",
            backbone=options.backbone,
            weights="random",
            seed=options.seed,
        )
    )
    if failed:
        raise SystemExit(1)
    say("3/5 Cross-validate (mil crossval)")
    run_crossval(
        CrossvalOptions(
            cohort=table,
            store=out / "store",
            out=out / "run",
            models=MODELS,
            folds=str(options.cases),
            seed=options.seed,
            overwrite=True,
        )
    )
    say("4/5 Explain one slide (mil explain)")
    explain(
        ExplainOptions(
            run=out / "run", input=out / "store" / "case-01-s1.h5", out=out / "explained"
        )
    )
    say("5/5 Report (mil report)")
    run_report(ReportOptions(run=out / "run"))
    say(f"Done in {time.perf_counter() - started:.0f} s.")
