"""Heads and baselines by name: a table, whose classes are imported when they are first used.

A baseline is a head too: the same contract, the same folds, the same table of predictions. Names are known
without torch. A name is looked up in three sources:

- ``mil.heads.table.MODELS``, the heads and baselines of this package: one row for each;
- heads of other installed packages, by entry points of the group ``sarcomil.heads``, in ``pyproject.toml``::

      [project.entry-points."sarcomil.heads"]
      my-head = "my_package.heads:MyHead"

- heads that a program has registered for itself with ``register_head``.

A head of another package that has the name of one of this package is left alone, with a note; two packages
with one name for a head, or a registered head of a name in use, are errors.
"""

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from features.choices import twice_problem, unknown_problem
from features.recipe import is_vector
from mil.errors import FitError, UnknownModel
from mil.heads.table import MODELS

if TYPE_CHECKING:
    from mil.heads.head import Head, HeadSettings, Outcome

ENTRY_POINTS = "sarcomil.heads"
OUTCOMES: "dict[Outcome, str]" = {
    "classes": "classes",
    "times": "survival times",
    "ordered": "an ordered outcome",
}


@dataclass(frozen=True, kw_only=True)
class InstalledHead:
    """A head that another package offers by an entry point.

    Attributes:
        name: of the head.
        package: the distribution that offers it.
        reference: ``module:Class``.
        problem: why it cannot be used; empty where nothing is known against it.
    """

    name: str
    package: str
    reference: str
    problem: str = ""


_registered: dict[str, "type[Head]"] = {}  # by this program, for itself


def head_names() -> tuple[str, ...]:
    """The heads of this package."""
    return tuple(name for name, row in MODELS.items() if row.reference.startswith("mil.heads."))


def baseline_names() -> tuple[str, ...]:
    """The baselines of this package."""
    return tuple(name for name, row in MODELS.items() if row.reference.startswith("mil.baselines."))


def model_names() -> tuple[str, ...]:
    """Names of all heads and baselines: those of this package, of installed packages, and registered ones.

    Example:
        print(", ".join(mil.list_models()))
    """
    installed = [head.name for head in installed_heads()]
    return tuple(dict.fromkeys([*MODELS, *installed, *_registered]))


@cache
def installed_heads() -> tuple[InstalledHead, ...]:
    """The heads that other installed packages offer, by name; none is imported.

    A name that is not free, or a package whose module is missing, is told in ``problem``.
    """
    from importlib.metadata import entry_points

    rows = []
    for entry in entry_points(group=ENTRY_POINTS):
        package = entry.dist.name if entry.dist else "unknown package"
        rows.append(InstalledHead(name=entry.name, package=package, reference=entry.value))
    rows = sorted(dict.fromkeys(rows), key=lambda row: (row.name, row.package))
    return tuple(
        InstalledHead(**{**vars(row), "problem": _installed_problem(row, rows)}) for row in rows
    )


def _installed_problem(head: InstalledHead, rows: Sequence[InstalledHead]) -> str:
    """What speaks against a head before it is imported."""
    if head.name in MODELS:
        return f"its name is that of the built-in {MODELS[head.name].reference}, which is used"
    if rivals := [row.package for row in rows if row.name == head.name and row != head]:
        return f"its name is also that of a head of {', '.join(rivals)}"
    module, _, _ = head.reference.partition(":")
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        return f"there is no module {module.partition('.')[0]!r}"
    return ""


def register_head(name: str, head: "type[Head]") -> None:
    """Give a head of one's own a name, for as long as this program runs.

    Workers that the program starts, here or on a cluster, know it too. A class that is defined again, as in
    a notebook, takes the place of the one before.

    Raises:
        FitError: the name is another head's, or this is no head.

    Example:
        import torch

        class MyPooling(mil.Head):
            def __init__(self, settings: mil.HeadSettings) -> None:
                super().__init__(settings)
                self.classify = torch.nn.Linear(settings.dim, settings.n_outputs)

            def pool(self, features, mask, coords):
                attention = (mask / mask.sum(dim=1, keepdim=True)).unsqueeze(1)  # (B, 1, N)
                embedding = (attention @ features).squeeze(1)  # (B, D)
                return mil.HeadOutput(
                    logits=self.classify(embedding),
                    attention=attention,
                    scores=attention.log(),
                    embedding=embedding,
                )

        mil.register_head("my-pooling", MyPooling)
        cohort = mil.load_cohort("cohort.csv", "store")
        fitted = mil.fit(cohort, "my-pooling", settings=mil.FitSettings(epochs=2, seeds=1))
    """
    from mil.heads.head import Head

    if not (isinstance(head, type) and issubclass(head, Head)):
        raise FitError(f"{name}: a head is a subclass of mil.heads.head.Head; got {head!r}.")
    if not name or "," in name or name != name.strip():
        raise FitError(f"A head's name is text without commas and outer blanks; got {name!r}.")
    taken = _reference_of(name)
    if taken and taken != _class_reference(head):
        raise FitError(f"Two models are named {name!r}: {taken} and {_class_reference(head)}.")
    if name not in MODELS:
        _registered[name] = head


def registered_heads() -> "Mapping[str, type[Head]]":
    """The heads this program has registered for itself: what another process must be told."""
    return dict(_registered)


def model_name(model: "str | type[Head]") -> str:
    """The name of a model that is given by name or by its class; an unnamed class gets its own name.

    Raises:
        FitError: of ``register_head``.
    """
    if isinstance(model, str):
        return model
    place = _class_reference(model)
    known = {name: row.reference for name, row in MODELS.items()}
    known |= {row.name: row.reference for row in installed_heads() if not row.problem}
    names = [name for name, reference in known.items() if reference == place]
    names += [name for name, head in _registered.items() if head is model]
    if names:
        return names[0]
    register_head(model.__name__, model)
    return model.__name__


def head_class(name: str) -> "type[Head]":
    """The class of a head.

    A head of this package comes before one of the same name that an installed package offers.

    Raises:
        UnknownModel: no head has this name.
        FitError: two packages have it, or the package that offers it is broken.
    """
    if name in MODELS:
        return _import_class(MODELS[name].reference)
    offers = [head for head in installed_heads() if head.name == name]
    if problems := [head for head in offers if head.problem]:
        raise FitError(_cannot_use(problems[0], problems[0].problem))
    if offers:
        return _import_installed(offers[0])
    if name in _registered:
        return _registered[name]
    raise UnknownModel(_unknown_models([name]))


def loadable_models(names: Sequence[str]) -> list[str]:
    """Those of the names whose heads can be loaded here: the package of another may have been removed."""
    return [name for name in names if not loading_problem(name)]


def loading_problem(name: str) -> str:
    """Why the head of this name cannot be loaded here; empty if it can."""
    try:
        head_class(name)
    except FitError as error:
        return str(error)
    return ""


def _unknown_models(names: Sequence[str]) -> str:
    """What is wrong with names of models that nobody offers; empty if each is known."""
    problem = unknown_problem("model", names, model_names())
    own = " A head of your own is known once its package is installed in this environment."
    return problem + own * bool(problem)


def _reference_of(name: str) -> str:
    """Where the head of this name lies, as ``module:Class``; empty where the name is free."""
    if name in MODELS:
        return MODELS[name].reference
    if name in _registered:
        return _class_reference(_registered[name])
    return next((row.reference for row in installed_heads() if row.name == name), "")


def _class_reference(head: type) -> str:
    return f"{head.__module__}:{head.__qualname__}"


@cache
def _import_class(reference: str) -> "type[Head]":
    """The class at ``module:Class``."""
    module, _, qualname = reference.partition(":")
    value: type[Head] = importlib.import_module(module)  # type: ignore[assignment]
    for part in qualname.split("."):
        value = getattr(value, part)
    return value


def _import_installed(offer: InstalledHead) -> "type[Head]":
    """The class of another package, which may fail in any way.

    Raises:
        FitError: naming the package.
    """
    from mil.heads.head import Head

    try:
        value = _import_class(offer.reference)
    except Exception as error:  # whatever that package's code raises
        raise FitError(_cannot_use(offer, f"{type(error).__name__}: {error}")) from error
    if not (isinstance(value, type) and issubclass(value, Head)):
        raise FitError(_cannot_use(offer, "it is not a subclass of mil.heads.head.Head"))
    return value


def _cannot_use(offer: InstalledHead, problem: str) -> str:
    return (
        f"Model {offer.name!r} of the installed package {offer.package} ({offer.reference}) cannot be used: "
        f"{problem}. Update or remove that package, or leave the model out."
    )


def build_head(name: str, settings: "HeadSettings", members: int = 1) -> "Head":
    """A fresh head, or several as an ensemble; a head that is not trained by steps is always one.

    Raises:
        FitError: of ``head_class``.
    """
    from mil.heads.ensemble import Ensemble

    build = head_class(name)
    heads = [build(settings) for _ in range(members if build.takes_steps() else 1)]
    return heads[0] if len(heads) == 1 else Ensemble(heads)


def check_names(names: Sequence[str]) -> None:
    """Refuse unknown, unusable or repeated names before any work is done.

    Raises:
        UnknownModel: models have no such name, or one is repeated.
        FitError: of ``head_class``.
    """
    if problem := _unknown_models(names):
        raise UnknownModel(problem)
    for name in names:
        if name not in MODELS:  # our own need not be imported to be known
            head_class(name)
    if problem := twice_problem("model", names):
        raise UnknownModel(problem)


def eclipsed_heads(names: Sequence[str]) -> list[str]:
    """Notes on installed packages that offer a head under the name of one of these built-in ones."""
    return [
        f"The installed package {head.package} also has a model {head.name!r} ({head.reference}). The "
        "built-in one is used; ask that package for another name."
        for head in installed_heads()
        if head.name in names and head.name in MODELS
    ]


def check_chunks(names: Sequence[str], chunk_tiles: int) -> None:
    """Refuse chunks for heads that look at all tiles of a bag together, before any work is done.

    Raises:
        FitError: naming the head.
    """
    if not chunk_tiles:
        return
    from mil.heads.head import Head

    for name in names:
        head = head_class(name)
        if head.learns_from == "bags" and head.summarise is Head.summarise:
            raise FitError(
                f"{name} looks at all tiles of a bag together, so a bag cannot be divided into chunks. Set "
                "chunk_tiles to 0, set train_tiles lower, or leave out the model."
            )


def check_rows(names: Sequence[str], recipe: Mapping[str, Any]) -> None:
    """Refuse models that compare the tiles of a slide, where a slide is one row.

    Args:
        names: of models.
        recipe: of the bags.

    Raises:
        FitError: naming the model, and those that can.
    """
    if not is_vector(recipe):
        return
    for name in names:
        if _compares_tiles(name):
            able = ", ".join(other for other in MODELS if not _compares_tiles(other))
            raise FitError(
                f"{name} compares the tiles of a slide, and each of these bags is one vector. Use one of "
                f"{able}."
            )


def _compares_tiles(name: str) -> bool:
    head = head_class(name)
    return head.learns_attention or head.learns_from == "tiles"


def check_outcomes(names: Sequence[str], outcome: "Outcome" = "times") -> None:
    """Refuse models that cannot learn this kind of outcome, before any work is done.

    Raises:
        FitError: naming the model, and those that can.
    """
    for name in names:
        if not head_class(name).supports(outcome):
            able = ", ".join(other for other in MODELS if head_class(other).supports(outcome))
            raise FitError(f"{name} learns classes, not {OUTCOMES[outcome]}. Use one of {able}.")


def reads_table(names: Sequence[str]) -> bool:
    """Whether one of the models learns from the table's columns."""
    return any(head_class(name).learns_from == "table" for name in names)
