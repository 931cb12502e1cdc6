"""A published study's settings and printed results, read from its TOML file."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import resources
from typing import Any, get_type_hints

from features.choices import choices_of, suggest
from features.files.parse import parse_toml
from features.recipe import Recipe
from features.stored import as_tuples, typed_value
from features.volumes.recipe import VolumeRecipe
from mil.errors import ProtocolError
from mil.finetune.settings import FinetuneSettings
from mil.heads.registry import check_names
from mil.protocols.arm import ARM_SETTINGS, Arm
from mil.protocols.questions import Question, check_question
from mil.segmentation.settings import SegmentSettings
from mil.settings import FitSettings, SplitSettings

KINDS: Mapping[str, type[Any]] = {
    "extract": Recipe,
    "split": SplitSettings,
    "fit": FitSettings,
    "finetune": FinetuneSettings,
    "segment": SegmentSettings,
    "volumes": VolumeRecipe,
}
HELD_OUT = "hold_out_tiles"  # beside the settings of fine-tuning: tiles per slide to test on
MEASURES = {
    "accuracy": "accuracy, tiles",
    "precision": "precision, tiles",
    "recall": "recall, tiles",
    "case_accuracy": "accuracy, cases",
    "case_auc": "macro AUC, cases",
    "sensitivity": "sensitivity, slices",
    "specificity": "specificity, slices",
    "positive_precision": "precision, slices",
    "f1": "F1, slices",
    "case_sensitivity": "sensitivity, cases",
    "case_specificity": "specificity, cases",
    "case_f1": "F1, cases",
    "dice": "Dice, cases",
    "dice_colour": "Dice of colour alone",
    "dice_tissue": "Dice of all tissue",
}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A study that can be rerun.

    Attributes:
        name: name of its file.
        title, source, published_on, measured: what it is, who published it, on which data, and over what the
            figures were measured.
        classes, cases_per_class: of the study's cohort.
        settings: the settings of each section: extract, split, fit, finetune.
        from_source: what the source says of each ``section.setting`` it states.
        chosen_here: why each other ``section.setting`` was chosen so.
        arms: in the order they are run.
        compare: arms to test against each other, each pair case by case; may be empty.
        questions: by name, which labels of a table make up each class; the first is the positive one.
        defects: what does not fit together in the printed figures, in sentences.
        changed: each ``section.setting`` that a user has changed, with its new value.
    """

    name: str
    title: str
    source: str
    published_on: str
    measured: str
    classes: int
    cases_per_class: int
    settings: Mapping[str, Mapping[str, Any]]
    from_source: Mapping[str, str]
    chosen_here: Mapping[str, str]
    arms: tuple[Arm, ...]
    compare: tuple[str, ...] = ()
    questions: Mapping[str, Question] = field(default_factory=dict)
    defects: tuple[str, ...] = ()
    changed: Mapping[str, str] = field(default_factory=dict)

    def settings_of(self, section: str, **more: Any) -> Any:
        """The settings of a stage: Recipe, SplitSettings, FitSettings or FinetuneSettings.

        Raises:
            SarcomilError: a value that the stage refuses.
            ProtocolError: a value of another type.
        """
        values = {**self.settings.get(section, {}), **more}
        values.pop(HELD_OUT, None)
        try:
            return KINDS[section](**{n: as_tuples(v) for n, v in values.items()})
        except (TypeError, AttributeError) as error:
            raise ProtocolError(f"{section}: a value has the wrong type ({error}).") from error

    def recipe_of(self, arm: Arm, **more: Any) -> Recipe:
        """How an arm makes its bags; raises as ``settings_of``."""
        own: dict[str, Any] = {} if arm.mpp is None else {"mpp": arm.mpp}
        if arm.shows:
            own["tile"] = self.volumes_of(arm.shows[0]).tile
        recipe: Recipe = self.settings_of("extract", backbone=arm.backbone, **own | more)
        return recipe

    def recipes_of(self, arm: Arm) -> tuple[Recipe, ...]:
        """The recipe of an arm, or one for each of its scales; raises as ``settings_of``."""
        return tuple(self.recipe_of(arm, mpp=mpp) for mpp in arm.scales) or (self.recipe_of(arm),)

    def volumes_of(self, channels: tuple[str, ...]) -> VolumeRecipe:
        """How volumes are laid out; raises as ``settings_of``."""
        recipe: VolumeRecipe = self.settings_of("volumes", channels=channels)
        return recipe

    @property
    def hold_out_tiles(self) -> int:
        """Tiles of each slide that are kept from training, for arms tested on such."""
        return int(self.settings.get("finetune", {}).get(HELD_OUT, 0))

    def check(self) -> None:
        """Refuse settings or backbones that a stage would refuse, before any work.

        Raises:
            SarcomilError: naming the value.
        """
        from features.backbones.registry import resolve_name

        for section in KINDS:
            if section != "volumes":  # which is nothing without channels
                self.settings_of(section)
        for name, question in self.questions.items():
            check_question(name, question)
        for arm in self.arms:
            self._check_arm(arm)
            self.recipes_of(arm)
            for channels in arm.shows:
                self.volumes_of(channels)
            resolve_name(arm.backbone)

    def _check_arm(self, arm: Arm) -> None:
        """Refuse what cannot go together; names are checked too."""
        if arm.model:
            check_names([arm.model])
        if arm.question and arm.question not in self.questions:
            raise ProtocolError(
                f"{arm.name}: no question {arm.question!r}.{suggest(arm.question, self.questions)}"
            )
        if (arm.model or arm.scales or arm.parts) and (arm.finetune or arm.test == "tiles"):
            raise ProtocolError(
                f"{arm.name}: a model of whole bags and joined stores need frozen features and whole cases "
                "to test on. Take finetune or test=tiles out of this arm."
            )
        if arm.region and not arm.model:
            raise ProtocolError(f"{arm.name}: tiles of {arm.region} need a model, such as abmil.")
        if (arm.scales or arm.parts) and not arm.model:
            raise ProtocolError(f"{arm.name}: joined stores need a model, such as abmil.")

    def to_json(self) -> dict[str, Any]:
        """The protocol as run.json holds it."""
        values = asdict(self)
        return values | {"stated": values.pop("from_source"), "ours": values.pop("chosen_here")}


def measure_words(arm: Arm, name: str) -> str:
    """A measure in words; tiles of volumes are slices."""
    return MEASURES[name].replace("tiles", "slices" if arm.shows else "tiles")


def protocol_names() -> list[str]:
    """Names of the protocols that can be run."""
    files = resources.files("mil.protocols").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def load_protocol(name: str) -> Protocol:
    """Read a protocol.

    Raises:
        ProtocolError: there is none of this name.

    Example:
        study = mil.load_protocol("usta-phase1")
        print(study.title, [(arm.name, arm.published) for arm in study.arms])
    """
    names = protocol_names()
    if name not in names:
        raise ProtocolError(
            f"No protocol {name!r}.{suggest(name, names)} Known: {', '.join(names)}."
        )
    content = tomllib.loads(
        (resources.files("mil.protocols") / f"{name}.toml").read_text(encoding="utf-8")
    )
    arms = tuple(
        Arm(**{key: as_tuples(v) for key, v in arm.items()}) for arm in content.pop("arms")
    )
    settings = {section: content.pop(section) for section in KINDS if section in content}
    return Protocol(
        name=name,
        settings=settings,
        arms=arms,
        compare=tuple(content.pop("compare", ())),
        defects=tuple(content.pop("defects", ())),
        from_source=content.pop("stated"),
        chosen_here=content.pop("ours"),
        **content,
    )


def with_changes(protocol: Protocol, changes: Sequence[str]) -> Protocol:
    """The protocol with changed settings, each written ``section.setting=value``.

    ``arms.backbone`` changes all arms, ``arms.mpp`` those of one scale and ``arms.scales`` the others, and
    ``arms.channels`` and ``arms.parts`` likewise those of CT or MRI;
    ``arms`` keeps only the named arms, with semicolons between.

    Raises:
        ProtocolError: not such a change, or no such setting of the protocol.
    """
    for change in changes:
        key, equals, text = change.partition("=")
        section, _, name = key.partition(".")
        if not equals or not text:
            raise ProtocolError(
                f"{change!r} is not a change: write for instance extract.max_tiles=200."
            )
        if key == "arms":
            protocol = replace(protocol, arms=_select_arms(protocol, text.split(";")))
        elif section == "arms" and name in ARM_SETTINGS:
            protocol = replace(protocol, arms=_changed_arms(protocol, name, text))
        elif key == "extract.backbone":
            raise ProtocolError(
                f"Every arm of {protocol.name} has a {name} of its own, so {key} would change nothing. "
                f"Write arms.{name}={text}."
            )
        elif section == "questions" and name:
            protocol = _with_question(protocol, name, _value(text))
        elif section in KINDS and name:
            is_list = _setting_is_list(section, name)
            values = protocol.settings.get(section, {})
            value = text if isinstance(values.get(name), str) else _value(text)
            if is_list and not isinstance(value, list):
                value = text.split(",")
            value = _typed(key, value, _hint(section, name))
            settings = {**protocol.settings, section: {**values, name: value}}
            protocol = replace(protocol, settings=settings)
        else:
            raise ProtocolError(
                f"{key!r} is not a setting. Sections: {', '.join(KINDS)}; also arms, "
                f"{', '.join(f'arms.{one}' for one in ARM_SETTINGS)} and the study's questions."
            )
        protocol = replace(protocol, changed={**protocol.changed, key: text})
    return protocol


def _changed_arms(protocol: Protocol, name: str, text: str) -> tuple[Arm, ...]:
    """The arms that embed tiles with another backbone or scale.

    Raises:
        ProtocolError: a value of another type, or no arm has such scales.
    """
    hint, what, has = ARM_SETTINGS[name]
    value: Any = text.split(",") if name == "channels" and "[" not in text else text
    if name != "channels" or "[" in text:
        value = _value(f"[{text}]" if name == "scales" and "[" not in text else text)
    value = _typed(f"arms.{name}", value, hint)
    chosen = {arm.name: not arm.segments and has(arm) for arm in protocol.arms}
    if not any(chosen.values()):
        raise ProtocolError(
            f"No arm of {protocol.name} has {what}, so arms.{name} would change nothing."
        )
    return tuple(
        replace(arm, **{name: value}) if chosen[arm.name] else arm for arm in protocol.arms
    )


def _with_question(protocol: Protocol, name: str, value: Any) -> Protocol:
    """The protocol with other labels in a question.

    Raises:
        ProtocolError: the study has no such question, or the value is not labels by class.
    """
    if name not in protocol.questions:
        known = ", ".join(protocol.questions) or "none"
        raise ProtocolError(f"No question {name!r} in {protocol.name}. Known: {known}.")
    if not isinstance(value, dict):
        raise ProtocolError(
            f"questions.{name} has labels by class; got {value!r}. Write for instance "
            f'questions.{name}={{A=["LMS", "SS"], B=["*"]}}.'
        )
    question = _typed(f"questions.{name}", value, dict[str, tuple[str, ...]])
    check_question(name, question)
    return replace(protocol, questions={**protocol.questions, name: question})


def _setting_is_list(section: str, name: str) -> bool:
    """Whether a setting of a section is a list.

    Raises:
        ProtocolError: the section has no such setting.
    """
    lists = {entry.name: isinstance(entry.default, tuple) for entry in fields(KINDS[section])}
    if section == "finetune":
        lists[HELD_OUT] = False
    if name not in lists:
        known = [f"{section}.{setting}" for setting in lists]
        raise ProtocolError(f"No setting {section}.{name}.{suggest(f'{section}.{name}', known)}")
    return lists[name]


def _hint(section: str, name: str) -> Any:
    return int if name == HELD_OUT else get_type_hints(KINDS[section])[name]


def _typed(key: str, value: Any, hint: Any) -> Any:
    """The value with the type of the setting.

    Raises:
        ProtocolError: it has another type, or is not one of the choices.
    """
    return typed_value(key, value, hint, ProtocolError, choices=choices_of(hint))


def _select_arms(protocol: Protocol, names: Sequence[str]) -> tuple[Arm, ...]:
    known = [arm.name for arm in protocol.arms]
    for name in names:
        if name not in known:
            raise ProtocolError(f"No arm {name!r} in {protocol.name}. Known: {'; '.join(known)}.")
    arms = tuple(arm for arm in protocol.arms if arm.name in names)
    for arm in arms:
        if arm.start and arm.start not in names:
            raise ProtocolError(
                f"{arm.name} starts from the weights of {arm.start}: name that arm too."
            )
    return arms


def _value(text: str) -> Any:
    """A value as TOML reads it; a bare word is text."""
    try:
        return parse_toml(f"value = {text}")["value"]
    except ValueError:
        return text
