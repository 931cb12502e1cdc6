"""The map of a model where no method is named."""

from mil.explanation.methods import Method, default_method
from mil.explanation.scores import TileScores
from mil.explanation.target import ExplanationTarget
from mil.heads.ensemble import members_of


def method_for(target: ExplanationTarget) -> Method:
    """The default method of what is explained."""
    head = type(next(iter(members_of(target.fitted.head))))
    return default_method(head, linear=target.quantity.linear)


def default_scores(target: ExplanationTarget) -> TileScores:
    """The map of the default method."""
    return method_for(target)(target)
