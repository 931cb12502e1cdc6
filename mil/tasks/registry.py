"""Tasks by name, imported on first use."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from features.choices import suggest
from mil.errors import CohortError
from mil.tasks.names import DEFAULT_TASK, TASKS
from mil.tasks.task import Task


def task_class(name: str = DEFAULT_TASK) -> type[Task]:
    """The class of a task.

    Raises:
        CohortError: no task has this name; the message names the nearest.
    """
    if name not in TASKS:
        hint = suggest(name, TASKS)
        raise CohortError(f"No task {name!r}.{hint} Known tasks: {', '.join(TASKS)}.")
    module, _, attribute = TASKS[name].target.partition(":")
    chosen: type[Task] = getattr(import_module(module), attribute)
    return chosen


def task_from(settings: Mapping[str, Any]) -> Task:
    """The task that settings of a run or a verb describe, by key ``task`` and the fields of that task."""
    return task_class(settings.get("task", DEFAULT_TASK)).from_settings(settings)
