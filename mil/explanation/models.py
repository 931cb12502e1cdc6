"""Which model of a run, and which of its classes, a request means."""

from collections.abc import Sequence
from pathlib import Path

from features.bags.bag import Bag
from mil.errors import FitError
from mil.explanation.methods import Method, bag_methods
from mil.heads.registry import head_class, loadable_models
from mil.learning.fitted import FittedModel
from mil.runs.run import Run, require_model


def choose_model(run: Run, method: Method | None = None, model: str | None = None) -> str:
    """The requested model, or the first that suits the method, attention models first.

    Args:
        run: a cross-validation or a trained model.
        method: the explanation method; all of them if not given.
        model: the name requested.

    Raises:
        NotInRun: the run has no such model.
        FitError: it does not suit the method, or its head cannot be loaded here.
    """
    names = loadable_models(run.models) or run.models
    able = [name for name in names if method is None or method.suits(head_class(name))]
    if model in able:
        return str(model)
    if model is None and able:
        return min(able, key=lambda name: not head_class(name).learns_attention)
    if model is not None:
        require_model(run, model)
        head_class(model)  # which names the package that is missing
    raise FitError(_refusal(run, method, model, able))


def _refusal(run: Run, method: Method | None, model: str | None, able: Sequence[str]) -> str:
    """What does not suit what, and a method or a model that would."""
    label = method.name if method else "any method"
    problem = f"{model} does not suit {label}" if model else f"has no model that suits {label}"
    models = [model] if model else loadable_models(run.models)
    methods = [
        row.name for row in bag_methods() if any(row.suits(head_class(name)) for name in models)
    ]
    remedies = [f"method {' or '.join(methods)}"] if methods else []
    remedies += [f"model {' or '.join(able)}"] if able else []
    remedy = f"Use {', or '.join(remedies)}" if remedies else "Fit a model that reads bags"
    return f"{run.path}: {problem}. Its models: {', '.join(run.models)}. {remedy}."


def choose_target(
    run: Run, bag: Bag, fitted: FittedModel, target: str | None, regions: Path | None
) -> str | None:
    """The requested target; beside regions, which show what the case has, the case's class; else None."""
    if target or regions is None:
        return target
    label = run.label_of(run.case_of(bag.slide, bag.case))
    return label if label in fitted.classes else None
