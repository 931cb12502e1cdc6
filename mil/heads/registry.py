"""Heads by name. Adding one is one file with one decorator, and its import below.

A baseline is a head too: the same contract, the same folds, the same table.
"""

from collections.abc import Callable, Sequence
from difflib import get_close_matches

from mil.errors import FitError
from mil.heads.ensemble import Ensemble
from mil.heads.head import Head, HeadSettings

HEADS: dict[str, type[Head]] = {}


def register(name: str) -> Callable[[type[Head]], type[Head]]:
    """Enter a head under a name."""

    def enter(head: type[Head]) -> type[Head]:
        if name in HEADS:
            raise ValueError(f"two heads are named {name!r}: {HEADS[name]} and {head}")
        HEADS[name] = head
        return head

    return enter


def build_head(name: str, settings: HeadSettings, members: int = 1) -> Head:
    """A fresh head, or several as an ensemble; what takes no steps has no chance to average over.

    Raises:
        FitError: no head has this name.
    """
    check_names([name])
    heads = [HEADS[name](settings) for _ in range(members if HEADS[name].takes_steps() else 1)]
    return heads[0] if len(heads) == 1 else Ensemble(heads)


def check_names(names: Sequence[str]) -> None:
    """Refuse unknown or repeated names before any work is done.

    Raises:
        FitError: naming the nearest known.
    """
    for name in names:
        if name not in HEADS:
            near = get_close_matches(name, HEADS, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise FitError(f"No model {name!r}.{hint} Known: {', '.join(HEADS)}.")
    if len(set(names)) < len(names):
        raise FitError(f"A model is named twice in {', '.join(names)}. Name each once.")


def check_chunks(names: Sequence[str], chunk_tiles: int) -> None:
    """Refuse chunks for heads that look at all tiles of a bag together, before any work is done.

    Raises:
        FitError: naming the head.
    """
    for name in names:
        head = HEADS[name]
        if chunk_tiles and head.learns_from == "bags" and head.summarise is Head.summarise:
            raise FitError(
                f"{name} looks at all tiles of a bag together and takes no chunks of it. Leave "
                "--chunk-tiles out, draw fewer with --train-tiles, or leave out the model."
            )


def check_outcomes(names: Sequence[str]) -> None:
    """Refuse models that learn classes only, before any work is done.

    Raises:
        FitError: naming the model, and those that learn survival.
    """
    for name in names:
        if not HEADS[name].takes_outcomes():
            able = ", ".join(other for other, head in HEADS.items() if head.takes_outcomes())
            raise FitError(f"{name} learns classes, not survival. Use one of {able}.")


def reads_table(names: Sequence[str]) -> bool:
    """Whether one of the models learns from the table's columns."""
    return any(HEADS[name].learns_from == "table" for name in names)


# Importing a head's file enters it.
from mil.baselines import clinical, majority, pooled, quantiles, svm, tile_vote  # noqa: E402, F401
from mil.heads import additive, attention, clam, dsmil, dtfd, pooling, transmil  # noqa: E402, F401
