"""A run folder of a published protocol: its arms on one's own cohort, printed and measured figures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from features.extraction.jobs import SlideJob
from features.files.tables import write_table
from features.progress import Progress, Silent
from mil.data.case import Row
from mil.data.volumes import VolumeTable
from mil.errors import ProtocolError
from mil.evaluation.classification.power import power as power_of
from mil.evaluation.comparison import PairTest, compare
from mil.evaluation.predictions import write_predictions
from mil.finetune.distributed import ranks
from mil.protocols.best import describe_best
from mil.protocols.films import Films
from mil.protocols.measures import ArmResult, join_predictions, over_repeats
from mil.protocols.protocol import Protocol, measure_words
from mil.protocols.questions import LabelCount, describe_question
from mil.protocols.rerun import Rerun
from mil.runs.files import PREDICTIONS, write_json
from mil.runs.record import NewRun, finish_run
from mil.segmentation.slides import COLUMN

UNMARKED = (
    f"The table has no column {COLUMN}: every slide counts as drawn in full, and tumour that nobody drew as "
    "a mistake of the segmenter. Write partial for slides on which some may be missing."
)
COLUMNS = ("arm", "backbone", "measure", "published", "measured", "low", "high", "cases", "tiles")


@dataclass(frozen=True, kw_only=True)
class ProtocolResult:
    """A protocol on a cohort.

    Attributes:
        protocol: what was done.
        labels: of the cases.
        arms: in the order they were run.
        pairs: the arms that the study compares, tested case by case.
        power: what a comparison of so few cases could have shown; empty without one.
        questions: what each question has made of the labels of the table.
    """

    protocol: Protocol
    labels: Mapping[str, str]
    arms: tuple[ArmResult, ...]
    pairs: tuple[PairTest, ...]
    power: str = ""
    questions: Mapping[str, tuple[LabelCount, ...]] = field(default_factory=dict)

    def rows(self) -> list[dict[str, Any]]:
        """Every measure of every arm, printed and measured; columns as in ``COLUMNS``, and ``words``."""
        return [
            {
                "arm": result.arm.name,
                "backbone": result.arm.backbone,
                "measure": name,
                "words": measure_words(result.arm, name),
                "published": result.arm.published.get(name),
                "measured": value,
                "low": result.intervals.get(name, (None, None))[0],
                "high": result.intervals.get(name, (None, None))[1],
                "cases": result.n_cases,
                "tiles": result.n_tiles,
            }
            for result in self.arms
            for name, value in result.measures.items()
        ]

    def limitations(self) -> list[str]:
        """How far printed and measured figures may be compared."""
        sentences = [
            f"The data differ: printed was measured on {self.protocol.published_on}; here are "
            f"{len(self.labels)} cases {self._kinds()}. A difference says nothing about either.",
        ]
        if not all(result.arm.model or result.arm.segments for result in self.arms):
            sentences.append(
                "Measures over tiles or slices have no interval: those of one case are not independent."
            )
        sentences += self._ways_of_counting()
        if any(result.arm.test == "tiles" for result in self.arms):
            sentences.append(
                "Other tiles of cases that were trained on show how well cases are remembered, not diagnosed."
            )
        if any(result.arm.test == "fields" for result in self.arms):
            sentences.append(
                "Other fields of slides that were trained on show how well a slide is remembered, not how "
                "well tumour is found on a new one."
            )
        if self.power:
            sentences.append(self.power)
        sentences += describe_best(self.arms)
        for name, counts in self.questions.items():
            sentences += describe_question(name, counts)
        sentences += [
            f"{result.arm.name}: {result.n_cases} cases of {len(self.labels)}."
            for result in self.arms
            if result.arm.question and result.n_cases < len(self.labels)
        ]
        if self.protocol.changed:
            changes = ", ".join(f"{key}={value}" for key, value in self.protocol.changed.items())
            sentences.append(f"Changed from the study: {changes}.")
        return sentences

    def _kinds(self) -> str:
        """How many classes the cases are of; where questions make classes of labels, how many labels."""
        count = len(set(self.labels.values()))
        return f"with {count} labels" if self.questions else f"of {count} classes"

    def _ways_of_counting(self) -> list[str]:
        """What a figure counts, where a case or a slice is tested more than once."""
        sentences = []
        repeats = {len(one.predictions.repeats) for one in self.arms if one.predictions}
        if max(repeats, default=1) > 1:
            sentences.append(
                "Figures and tests over cases are of one answer per case: the mean of its probabilities over "
                f"{max(repeats)} repeats. One network alone may be worse."
            )
        if any("sensitivity" in result.measures for result in self.arms):
            sentences.append(
                "Figures over slices count the slices of all folds and repeats together."
            )
        return sentences


def run_protocol(
    new_run: NewRun,
    protocol: Protocol,
    rows: Sequence[Row],
    jobs: Sequence[SlideJob] | VolumeTable,
    *,
    device: str = "auto",
    workers: int = 0,
    progress: Progress | None = None,
    notify: Callable[[str], None] = lambda _message: None,
) -> ProtocolResult:
    """Do what a study did on one's own slides, and write the run folder; an interrupted run is continued.

    Args:
        new_run: the folder to write.
        protocol: what to do.
        rows: of the cohort table, each with a label.
        jobs: the same slides; the table of their series, for a study on CT or MRI.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        workers: threads; 0 is one per core.
        progress: is advanced by each slide, step and tile.
        notify: called with the study's title, with a line on each arm as soon as it is done, and with what
            was assumed of volumes.

    Raises:
        ProtocolError: a slide has no label, or the cohort cannot carry the protocol.
        RunError: the folder holds another run, or another process writes it.
        BackboneError: the weights of a backbone are not there.
        LeakageError: weights have seen a case that would be tested.
        FitError: a slide cannot be used, or a training failed.
    """
    if unlabelled := [row.slide for row in rows if not row.label]:
        raise ProtocolError(
            f"{len(unlabelled)} slides have no label, e.g. {unlabelled[0]}. Fill the label column."
        )
    labels = {row.case: row.label for row in rows}
    progress = progress or Silent()
    films, slides = None, jobs
    if isinstance(slides, VolumeTable):
        folder = new_run.path / "arms" / "films"
        films, slides = Films(table=slides, folder=folder, progress=progress, notify=notify), ()
    arms: list[ArmResult] = []
    with ranks(device, workers) as process:
        rerun = Rerun(
            protocol=protocol,
            rows=rows,
            jobs=slides,
            out=new_run.path,
            ranks=process,
            progress=progress,
            films=films,
        )
        questions = rerun.labels()
        _check_weights(protocol)
        for arm in protocol.arms:
            rerun.splits(arm)  # a cohort that cannot carry the protocol is refused before any work
        run = new_run.start("protocol", _facts(protocol, labels, questions))
        notify(f"{protocol.title}. {protocol.source}.")
        if any(arm.segments for arm in protocol.arms) and not any(COLUMN in r.other for r in rows):
            notify(UNMARKED)
        for name, counts in questions.items():
            for sentence in describe_question(name, counts):
                notify(sentence)
        for arm_result in rerun.results():
            arms.append(arm_result)
            notify(_describe_arm(arm_result))
    pairs, power = _compare_arms(new_run, protocol, arms)
    result = ProtocolResult(
        protocol=protocol,
        labels=labels,
        arms=tuple(arms),
        pairs=pairs,
        power=power,
        questions=questions,
    )
    lines = ([row.get(name, "") for name in COLUMNS] for row in result.rows())
    write_table(new_run.path / "results.csv", COLUMNS, lines)
    write_json(new_run.path / "comparison.json", [pair.to_json() for pair in pairs])
    finish_run(run)
    return result


def _check_weights(protocol: Protocol) -> None:
    """Load every backbone once, so that weights which are not there are named before any work.

    Raises:
        BackboneError: naming them.
    """
    from features.backbones.registry import load_backbone

    own = [arm for arm in protocol.arms if not (arm.start or arm.segments)]
    recipes = [recipe for arm in own for recipe in protocol.recipes_of(arm)]
    for recipe in {(one.backbone, one.weights): one for one in recipes}.values():
        load_backbone(recipe.backbone, recipe.weights, stated=recipe.stated)


def _facts(
    protocol: Protocol,
    labels: Mapping[str, str],
    questions: Mapping[str, Sequence[LabelCount]],
) -> dict[str, Any]:
    """What run.json tells of a protocol on a cohort."""
    counts = {name: [asdict(count) for count in of_one] for name, of_one in questions.items()}
    return {"protocol": protocol.to_json(), "labels": labels, "questions": counts}


def _compare_arms(
    new_run: NewRun, protocol: Protocol, arms: Sequence[ArmResult]
) -> tuple[tuple[PairTest, ...], str]:
    """Write the predictions of all arms that test cases; test those that the study compares, pair by pair.

    Returns:
        The tests, and what so few cases could have shown.
    """
    compared, power = set(protocol.compare), ""
    tests: list[PairTest] = []
    for question, predictions in join_predictions(arms).items():
        name = f"predictions-{question}.csv" if question else PREDICTIONS
        write_predictions(new_run.path / name, predictions)
        if len(shown := [name for name in predictions.models if name in compared]) > 1:
            tests += compare(over_repeats(predictions).select(shown))
            power = str(power_of(predictions.table["case"].nunique()))
    return tuple(tests), power


def _describe_arm(result: ArmResult) -> str:
    if result.arm.segments:
        dice, colour = result.measures["dice"], result.measures["dice_colour"]
        return (
            f"{result.arm.name}: Dice {dice:.3f} over {result.n_cases} cases, {colour:.3f} by colour alone; "
            f"{result.seconds:.0f} s."
        )
    speed = result.n_tiles / result.seconds if result.seconds else 0.0
    parts = "slices" if result.arm.shows else "tiles"
    over = "cases" if result.arm.model else parts
    accuracy = result.measures["case_accuracy" if result.arm.model else "accuracy"]
    return (
        f"{result.arm.name}: {result.n_tiles} {parts} of {result.n_cases} cases tested, "
        f"accuracy {accuracy:.2f} over {over}; embedded at {speed:.1f} {parts}/s, "
        f"{result.seconds / result.n_cases:.1f} s a case."
    )
