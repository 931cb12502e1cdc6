"""The card of a packed model: what it is for, what it learnt from, how well it does, and its limits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from features.recipe import SEGMENTED, VOLUME, recipe_parts
from mil.answers.predictor import Predictor
from mil.evaluation.display import format_count
from mil.evaluation.words import fit_words
from mil.runs.run import Run

if TYPE_CHECKING:
    from features.lowpower.segmenter import SegmenterCard

INTENDED_USE = (
    "Research on slides like those it learnt from, by who knows the disease; not for diagnosis."
)
LIMITS = (
    "Its figures come from its own cases, out of fold. Slides of another laboratory or scanner may do "
    "worse; an external validation tells.",
    "A map shows what the model uses, not what the disease is.",
)
PROTECTION = (
    "By fingerprint of their names, so that they can be recognised. Each is made by scrypt with a salt "
    "of this package alone: no list tells the names, nor which cases two packages share. That does not "
    "protect a name that can be guessed: whoever has the package checks one in a tenth of a second, "
    "case-01 to case-99 in seconds, and all numbers of a hospital within days. Whoever has a slide can "
    "check whether it was learnt from. To recognise second scans, the package also holds a grey picture "
    "of each training slide's tissue, at most 256 pixels wide. Names that must stay secret are replaced "
    "by study numbers before the analysis."
)


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What is known of a model.

    Attributes:
        title: of the study.
        question: what it answers.
        model: head and number of fits.
        input: how slides become its input.
        learnt_from: cases and slides by class.
        region: of the recipe of the bags: a card of CT and MRI says series and slices.
        cases: fingerprints of the cases' names, in a package; empty of a run.
        performance: out of fold, with intervals.
        promise: what an answer is worth.
        limit: what an answer is not.
        licence: of the encoder's weights.
        versions: of the libraries.
        finished: when the study was made.
        segmenter: what finds the tumour of new slides, and how well; empty without one.
    """

    title: str
    question: str
    model: str
    input: str
    learnt_from: str
    performance: str
    promise: str
    limit: str
    licence: str
    versions: str
    finished: str
    segmenter: str = ""
    region: str = ""
    cases: tuple[str, ...] = ()

    def to_markdown(self, notes: Sequence[str] = ()) -> str:
        """The card as text with headings."""
        rows = [
            ("Question", self.question),
            ("Model", self.model),
            ("Input", self.input),
            ("Learnt from", self.learnt_from),
            ("Out of fold", self.performance or "not known: the model was trained on all cases"),
            ("What an answer is worth", self.promise),
            *([("Segmenter", self.segmenter)] if self.segmenter else []),
            ("Licence of the encoder", self.licence),
            ("Versions", self.versions),
            ("Made", self.finished),
        ]
        lines = [f"# {self.title}", "", "## Intended use", "", INTENDED_USE, "", "## Model", ""]
        lines += [f"**{name}.** {text}\n" for name, text in rows]
        lines += ["## Limits", "", *(f"- {text}" for text in (self.limit, *LIMITS, *notes)), ""]
        if self.cases:
            lines += ["## Cases", "", PROTECTION, "", " ".join(self.cases), ""]
        return fit_words("\n".join(lines), self.region)


def card_of_run(run: Run, predictor: Predictor) -> ModelCard:
    """The card of a run's model."""
    counts = dict.fromkeys(run.classes, 0)
    for label in run.labels.values():
        counts[label] = counts.get(label, 0) + 1
    recipe = next(iter(recipe_parts(run.recipe)))
    return ModelCard(
        title=run.title,
        question=f"{run.task.name}: {', '.join(predictor.readout.classes)}",
        model=f"{predictor.model}, {format_count(len(predictor.fits), 'fit')}",
        input=_describe_input(recipe),
        learnt_from=f"{len(run.labels)} cases, {len(run.cases)} slides: "
        + ", ".join(f"{label}: {count}" for label, count in counts.items()),
        performance=predictor.performance,
        promise=f"{predictor.reader.promise()} {predictor.reader.record}".strip(),
        limit=predictor.reader.limit,
        licence=_licence(str(recipe.get("backbone", ""))),
        versions=", ".join(f"{name} {version}" for name, version in run.versions.items()),
        finished=run.finished,
        region=str(recipe.get("region", "")),
    )


def describe_segmenter(card: "SegmenterCard", model_region: str) -> str:
    """What a segmenter is, how good it was on cases it had not seen, and what it does to the sets.

    Args:
        card: of the segmenter.
        model_region: what the tiles of the model's training slides were laid over.
    """
    facts = [f"{card.kind}, encoder {card.network.name}, weights {card.weights}"]
    facts.append(f"learnt from {format_count(len(card.trained_on), 'case')}")
    of_method = card.evaluation.get("methods", {}).get(card.kind, {})
    dice = of_method.get("dice", {})
    if dice.get("value") is not None:
        limits = "" if dice["low"] is None else f" ({dice['low']:.2f} to {dice['high']:.2f})"
        facts.append(
            f"Dice {dice['value']:.2f}{limits} over "
            f"{format_count(of_method['cases'], 'case')} that it had not seen"
        )
    else:
        facts.append("how well it finds tumour was not measured")
    licence = _licence(card.network.name)
    text = f"{'; '.join(facts)}. Licence of its encoder: {licence}."
    if model_region != SEGMENTED:
        text += (
            " The model learnt from drawn tumour, so that nothing is promised of slides whose tumour the "
            "segmenter finds."
        )
    return text


def _describe_input(recipe: Mapping[str, Any]) -> str:
    """How slides become bags."""
    if recipe.get("region") == VOLUME:
        laid_out = {k: v for k, v in recipe["volume"].items() if k not in ("channels", "tile")}
        settings = ", ".join(f"{key} {value}" for key, value in sorted(laid_out.items()))
        return (
            f"slices of {', '.join(recipe['volume']['channels'])} (red, green, blue), "
            f"{recipe.get('tile')} px wide, laid out with {settings}; encoder "
            f"{recipe.get('backbone', '?')}, weights {recipe.get('weights', '?')}"
        )
    inside = " or ".join(recipe.get("classes", ())) or recipe.get("region", "the region")
    return (
        f"tiles of {recipe.get('tile', '?')} px at {recipe.get('mpp', '?')} micrometres per pixel, inside "
        f"{inside}; encoder {recipe.get('backbone', '?')}, weights {recipe.get('weights', '?')}"
    )


def _licence(backbone: str) -> str:
    """The licence of an encoder's weights, as far as it is known without them."""
    from features.backbones.catalogue import published_recipe

    known = published_recipe(backbone)
    return known.licence if known else "see its source"
