"""Heads of other packages for a help text: what is wrong with one is read from its source, unimported."""

import ast
import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from mil.heads.registry import InstalledHead, installed_heads


def heads_by_use() -> tuple[tuple[InstalledHead, ...], tuple[InstalledHead, ...]]:
    """The installed heads that can be used, and those that cannot, with the problem."""
    rows = [
        row if row.problem else replace(row, problem=source_problem(row.reference))
        for row in installed_heads()
    ]
    usable = tuple(row for row in rows if not row.problem)
    return usable, tuple(row for row in rows if row.problem)


def source_problem(reference: str) -> str:
    """Why a class cannot be imported; empty where its source does not show it.

    Args:
        reference: ``module:Class``.
    """
    module, _, qualname = reference.partition(":")
    spec = _spec_of(module)
    if isinstance(spec, str):
        return f"there is no module {spec!r}"
    if not spec.origin or Path(spec.origin).suffix != ".py":
        return ""
    try:
        tree = ast.parse(Path(spec.origin).read_bytes())
    except (OSError, SyntaxError, ValueError) as error:
        return f"module {module!r} cannot be read ({error})"
    for needed in _imported(tree):
        if importlib.util.find_spec(needed) is None:
            return f"its module needs {needed!r}, which is not installed"
    return _name_problem(tree, module, qualname.partition(".")[0])


def _spec_of(module: str) -> ModuleSpec | str:
    """Where a module lies; the name of the first part that is nowhere. Packages above it are not run."""
    top, *parts = module.split(".")
    spec = importlib.util.find_spec(top)
    name = top
    for part in parts:
        if spec is None:
            break
        name = f"{name}.{part}"
        spec = PathFinder.find_spec(name, spec.submodule_search_locations or [])
    return name if spec is None else spec


def _imported(tree: ast.Module) -> Iterator[str]:
    """The packages that a module always imports."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _name_problem(tree: ast.Module, module: str, name: str) -> str:
    """Whether a module lacks a name, or has it for something that is plainly no class."""
    nodes = [node for node in ast.walk(tree) if name in _names_of(node)]
    if not nodes:
        return "" if _is_open(tree) else f"module {module!r} has no {name}"
    values = [getattr(node, "value", node) for node in tree.body if node in nodes]
    plain = (ast.Constant, ast.FunctionDef, ast.AsyncFunctionDef, ast.List, ast.Dict, ast.Lambda)
    only_plain = values and len(values) == len(nodes)
    return f"{name} is not a class" * bool(
        only_plain and all(isinstance(value, plain) for value in values)
    )


def _names_of(node: ast.AST) -> set[str]:
    """The names that a statement binds."""
    match node:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return {name}
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return {(alias.asname or alias.name).partition(".")[0] for alias in names}
        case ast.Assign(targets=targets):
            return {n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
    return set()


def _is_open(tree: ast.Module) -> bool:
    """Whether a module may have names that its source does not write."""
    bound = {name for node in ast.walk(tree) for name in _names_of(node)}
    return bool({"*", "__getattr__"} & bound) or "globals" in ast.dump(tree)
