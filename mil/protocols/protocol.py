"""A published study's settings and printed results, read from its TOML file."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from importlib import resources
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from features.recipe import Recipe
from mil.errors import ProtocolError
from mil.finetune.settings import FinetuneSettings
from mil.settings import FitSettings, SplitSettings

KINDS: Mapping[str, type[Any]] = {
    "extract": Recipe,
    "split": SplitSettings,
    "fit": FitSettings,
    "finetune": FinetuneSettings,
}
HELD_OUT = "hold_out_tiles"  # beside the settings of fine-tuning: tiles per slide to test on
TESTS = ("folds", "tiles", "external")
MEASURES = {
    "accuracy": "accuracy, tiles",
    "precision": "precision, tiles",
    "recall": "recall, tiles",
    "case_accuracy": "accuracy, cases",
    "case_auc": "macro AUC, cases",
}


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One thing the study tried.

    Attributes:
        name: as the study calls it.
        backbone: as of `mil extract`.
        mpp: where it differs from the study's.
        finetune: whether the backbone is trained; else it is frozen and a classifier is trained on it.
        start: the arm whose weights it starts from; empty for the weights of the recipe.
        test: ``folds``, ``tiles`` (others of the cases trained on) or ``external`` (split=test).
        published: measure to the figure printed.
    """

    name: str
    backbone: str
    mpp: float | None = None
    finetune: bool = False
    start: str = ""
    test: str = "folds"
    published: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A study that can be rerun.

    Attributes:
        name: of its file.
        title, source, published_on, measured: what it is, of whom, on what, and over what it counts.
        classes, cases_per_class: of the study's cohort.
        settings: section (extract, split, fit, finetune) to the settings of that stage.
        stated, ours: ``section.setting`` to what the source says, or to why it was chosen here; each
            setting stands in one of the two.
        arms: in the order they are run.
        compare: two arms to test against each other, case by case; may be empty.
        changed: ``section.setting`` to what a user has put in place of the study's.
    """

    name: str
    title: str
    source: str
    published_on: str
    measured: str
    classes: int
    cases_per_class: int
    settings: Mapping[str, Mapping[str, Any]]
    stated: Mapping[str, str]
    ours: Mapping[str, str]
    arms: tuple[Arm, ...]
    compare: tuple[str, ...] = ()
    changed: Mapping[str, str] = field(default_factory=dict)

    def settings_of(self, section: str, **more: Any) -> Any:
        """The settings of a stage: Recipe, SplitSettings, FitSettings or FinetuneSettings.

        Raises:
            SarcomilError: a value that the stage refuses.
            ProtocolError: a value of another type.
        """
        held = {**self.settings.get(section, {}), **more}
        held.pop(HELD_OUT, None)
        try:
            return KINDS[section](
                **{n: tuple(v) if isinstance(v, list) else v for n, v in held.items()}
            )
        except (TypeError, AttributeError) as error:
            raise ProtocolError(f"{section}: a value has the wrong type ({error}).") from error

    def recipe_of(self, arm: Arm, **more: Any) -> Recipe:
        """How an arm makes its bags; raises as ``settings_of``."""
        own = {} if arm.mpp is None else {"mpp": arm.mpp}
        recipe: Recipe = self.settings_of("extract", backbone=arm.backbone, **own, **more)
        return recipe

    @property
    def hold_out_tiles(self) -> int:
        """Tiles of each slide that are kept from training, for arms tested on such."""
        return int(self.settings.get("finetune", {}).get(HELD_OUT, 0))

    def check(self) -> None:
        """Refuse settings that a stage would refuse, before any work.

        Raises:
            SarcomilError: naming the value.
        """
        for section in KINDS:
            self.settings_of(section)
        for arm in self.arms:
            self.recipe_of(arm)


def names() -> list[str]:
    """The protocols there are."""
    files = resources.files("mil.protocols").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def load(name: str) -> Protocol:
    """Read a protocol.

    Raises:
        ProtocolError: there is none of this name.
    """
    if name not in names():
        near = get_close_matches(name, names(), 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ProtocolError(f"No protocol {name!r}.{hint} Known: {', '.join(names())}.")
    told = tomllib.loads((resources.files("mil.protocols") / f"{name}.toml").read_text("utf-8"))
    arms = tuple(Arm(**arm) for arm in told.pop("arms"))
    settings = {section: told.pop(section) for section in KINDS if section in told}
    compare = tuple(told.pop("compare", ()))
    return Protocol(name=name, settings=settings, arms=arms, compare=compare, **told)


def changed(protocol: Protocol, changes: Sequence[str]) -> Protocol:
    """The protocol with settings of one's own, each written ``section.setting=value``.

    ``arms.backbone`` changes all arms; ``arms`` keeps only those named, with semicolons between.

    Raises:
        ProtocolError: not such a change, or no such setting of the protocol.
    """
    for change in changes:
        key, equals, text = change.partition("=")
        section, _, name = key.partition(".")
        if not equals or not text:
            raise ProtocolError(f"{change!r} is no change: write extract.max_tiles=200.")
        if key == "arms":
            protocol = replace(protocol, arms=_named(protocol, text.split(";")))
        elif section == "arms" and name in ("backbone", "mpp"):
            given = {name: _typed(key, _value(text), str if name == "backbone" else float)}
            protocol = replace(protocol, arms=tuple(replace(a, **given) for a in protocol.arms))
        elif key == "extract.backbone":
            raise ProtocolError(
                f"Every arm of {protocol.name} has a {name} of its own, so {key} would change nothing. "
                f"Write arms.{name}={text}."
            )
        elif section in KINDS and name:
            known = _known(section, name)
            held = protocol.settings.get(section, {})
            value = text if isinstance(held.get(name), str) else _value(text)
            if known[name] and not isinstance(value, list):
                value = text.split(",")
            value = _typed(key, value, _hint(section, name))
            settings = {**protocol.settings, section: {**held, name: value}}
            protocol = replace(protocol, settings=settings)
        else:
            raise ProtocolError(
                f"{key!r} is no setting. Sections: {', '.join(KINDS)}; also arms, arms.backbone, arms.mpp."
            )
        protocol = replace(protocol, changed={**protocol.changed, key: text})
    return protocol


def _known(section: str, name: str) -> dict[str, bool]:
    """The settings of a section, and whether each is a list."""
    known = {each.name: isinstance(each.default, tuple) for each in fields(KINDS[section])}
    if section == "finetune":
        known[HELD_OUT] = False
    if name not in known:
        near = get_close_matches(name, known, 1)
        hint = f" Did you mean {section}.{near[0]}?" if near else ""
        raise ProtocolError(f"No setting {section}.{name}.{hint}")
    return known


def _hint(section: str, name: str) -> Any:
    return int if name == HELD_OUT else get_type_hints(KINDS[section])[name]


def _typed(key: str, value: Any, hint: Any) -> Any:
    """The value as the setting holds it.

    Raises:
        ProtocolError: it is of another type.
    """
    if isinstance(value, bool) and hint is not bool:
        raise ProtocolError(f"{key} is {value!r}: not a {getattr(hint, '__name__', hint)}.")
    try:
        return TypeAdapter(hint, config=ConfigDict(coerce_numbers_to_str=True)).validate_python(
            value
        )
    except ValidationError as error:
        raise ProtocolError(f"{key} is {value!r}: {error.errors()[0]['msg']}.") from error


def _named(protocol: Protocol, wanted: Sequence[str]) -> tuple[Arm, ...]:
    known = [arm.name for arm in protocol.arms]
    for name in wanted:
        if name not in known:
            raise ProtocolError(f"No arm {name!r} in {protocol.name}. Known: {'; '.join(known)}.")
    kept = tuple(arm for arm in protocol.arms if arm.name in wanted)
    for arm in kept:
        if arm.start and arm.start not in wanted:
            raise ProtocolError(
                f"{arm.name} starts from the weights of {arm.start}: name that too."
            )
    return kept


def _value(text: str) -> Any:
    """A value as TOML reads it; a bare word is text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
