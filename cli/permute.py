"""`mil permute`: the user's own cross-validation where there is nothing to find."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cli.app import app
from cli.options import UsageError, verb, writable
from cli.runs import MOVED_COHORT, MOVED_STORE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mil.audit.permutation import PermutationTest
    from mil.runs.run import Run


@dataclass(frozen=True, kw_only=True)
class PermuteOptions:
    """Settings of `mil permute`."""

    run: Path = field(metadata={"argument": "RUN", "help": "A run of `mil crossval`."})
    times: int = field(
        default=20,
        metadata={"help": "Number of shuffles; at least 20 are needed to detect a leak."},
    )
    out: Path = field(metadata={"help": "Folder for the shuffles as JSON and CSV, and a picture."})
    workers: int = field(
        default=0,
        metadata={
            "help": "Shuffles at a time, one thread each; 0 is one per core where that saves time. The "
            "results do not depend on it.",
            "panel": "Computing",
        },
    )
    store: Path | None = field(default=None, metadata=MOVED_STORE)
    cohort: Path | None = field(default=None, metadata=MOVED_COHORT)

    def __post_init__(self) -> None:
        if self.times < 2:
            raise UsageError(
                f"--times must be a number of shuffles from 2; got {self.times}. Use 20."
            )
        if self.workers < 0:
            raise UsageError(f"--workers must be 0 or more; got {self.workers}. Use 0.")


@verb(app, PermuteOptions, examples=["mil permute developed --times 20 --out permuted"])
def permute(options: PermuteOptions) -> None:
    """Repeat a cross-validation with outcomes shuffled between cases.

    Every model should drop to chance; one that does not reveals a leak: something in the pipeline has shown
    it the outcomes of the tested cases. Shuffles that an interrupted call has finished are not repeated.
    """
    from mil.runs.run import open_run

    writable(options.out)
    run = open_run(options.run, store=options.store, cohort=options.cohort)
    if permute_and_show(run, options.out, options.times, options.workers):
        raise SystemExit(1)


def permute_and_show(run: "Run", out: Path, times: int, workers: int = 0) -> int:
    """Run the shuffles and print what they show; the number of leaking models."""
    from cli.console import Bars, say
    from mil.api.judging import permute as permute_labels

    tests = permute_labels(run, times, out, workers=workers, progress=Bars())
    _show(run, tests, times, finetuned=run.settings.own_bags)
    say(f"Each shuffle: {out / 'permutation.csv'}. Picture: {out / 'permutation.png'}")
    return sum(test.leaks for test in tests)


def _show(run: "Run", tests: "Sequence[PermutationTest]", times: int, *, finetuned: bool) -> None:
    """The tests as a table, and what it does not show or must not hide."""
    from cli.console import complain, show_table, warn

    show_table(
        ["model", run.task.null_label, f"mean of {times} shuffles", "range", "p", "result"],
        [_row(test) for test in tests],
    )
    for remark in dict.fromkeys(test.remark for test in tests if test.remark):
        warn(remark)
    seen = {name for bag in run.cohort().bags for name in bag.trained_on}
    if seen and not finetuned:
        warn(
            f"The backbone was fine-tuned on {len(seen)} cases with their true outcomes; shuffling what "
            "comes after it cannot show what it has seen."
        )
    leaking = [test.model for test in tests if test.leaks]
    if leaking:
        complain(
            f"{', '.join(leaking)}: finds signal in shuffled outcomes. Something about the tested cases "
            "reaches the fits; trust none of these numbers."
        )


def _row(test: "PermutationTest") -> list[str]:
    from mil.evaluation.display import format_p

    if test.observed is None or test.p_value is None:
        return [test.model, "undefined", "", "", "", test.verdict]
    mean = sum(test.values) / len(test.values)
    return [
        test.model,
        f"{test.observed:.2f}",
        f"{mean:.3f}",
        f"{min(test.values):.2f} to {max(test.values):.2f}",
        format_p(test.p_value),
        test.verdict,
    ]
