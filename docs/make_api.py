"""Writes docs/api.md: for each public name of ``mil`` its signature, its docstring and its example."""

import ast
import dataclasses
import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

import mil

GROUPS = {
    "Slides and bags": (
        "Recipe", "extract", "convert", "SourceFacts", "export", "join", "Bag", "make_bag", "read_bag",
        "write_bag", "open_slide", "Slide",
        "read_annotations", "check_cohort", "draw_cohort", "check_machine",
    ),
    "Backbones": (
        "load_backbone", "list_backbones", "list_catalogue", "fetch_weights", "BackboneEntry",
        "finetune_backbone", "FinetuneSettings",
    ),
    "CT, MRI and radiomics": (
        "list_series", "VolumeRecipe", "extract_volumes", "contour_volumes", "ContourSettings",
        "apply_contours", "radiomics_bags",
    ),
    "Public cohorts": ("fetch_gdc", "fetch_idc", "FetchedCohort"),
    "Data": ("load_cohort", "Cohort", "Case", "split_cases", "Fold"),
    "Tasks": ("Diagnosis", "Survival", "Grade", "Task"),
    "Settings": ("FitSettings", "SplitSettings", "JudgeSettings"),
    "Runs": (
        "cross_validate", "train", "open_run", "Run", "external_validation", "learning_curve", "permute",
        "compare_scales", "finetune_per_fold", "TunedCases",
    ),
    "Finding tumour": (
        "train_segmenter", "evaluate_segmenter", "apply_segmenter", "SegmentSettings", "TrainedSegmenter",
        "SegmentEvaluation", "AppliedSlide", "segment_per_fold", "SegmentedCases",
    ),
    "New slides": ("predict_slides", "Answers", "Answer", "read_card"),
    "Models": (
        "fit", "FittedModel", "load_model", "predict", "list_models", "Head", "HeadSettings", "HeadOutput",
        "check_head", "register_head",
    ),
    "Judging": (
        "read_predictions", "Predictions", "evaluate", "Evaluation", "Estimate", "compare", "nomogram",
        "audit_table",
    ),
    "Explaining": ("explain", "list_methods", "TileScores", "Explanation"),
    "Published studies": ("list_protocols", "load_protocol", "Protocol", "run_protocol"),
    "Errors": (
        "SarcomilError", "FeaturesError", "SlideError", "BagError", "MilError", "CohortError", "LeakageError",
        "FitError", "RunError", "PredictionsError", "FetchError",
    ),
    "Version": ("__version__",),
}  # fmt: skip
INTRODUCTION = """\
# The Python interface

`import mil` offers the names below; each is loaded when it is first used. `import features` offers those of
slides and bags alone. The examples run in this order in a folder with `cohort.csv` (a row per slide: case,
slide, label, and for the examples also time, event and grade), the folder `slides` and the folder
`annotations`; `external.csv` and `external-store` are the table and the bags of further cases, `clam` holds
features of another tool, `outlined.csv` lists slides of the folder `outlined` whose tumour is drawn in full
(columns case, slide, label, annotated, split), `volumes.csv` lists CT, T1 and PET of the folder `patients`,
and `radiomics.csv` has features of their tumours. Every error is a `mil.SarcomilError`.

This page is written from the docstrings by `make pages`.
"""
SECTIONS = ("Args", "Attributes", "Returns", "Raises", "Example")
WIDTH = 100  # of a signature on one line
ELSEWHERE = re.compile(r"see `[\w.]+(Options|Reading|Files|Words)`")  # a class of options
QUOTES = "'\""


def write_page() -> str:
    """The page as Markdown."""
    parts = [INTRODUCTION]
    for group, names in GROUPS.items():
        parts += [f"## {group}\n", *(describe(name) for name in names)]
    return "\n".join(parts)


def describe(name: str) -> str:
    """The section of one public name."""
    value = getattr(mil, name)
    if isinstance(value, str):
        return f"### `mil.{name}`\n\nThe version of the package.\n"
    summary, sections = split_docstring(inspect.getdoc(value) or "")
    parts = [f"### `mil.{name}`\n", *signature(name, value), f"{summary}\n"]
    parts += [
        f"{title}:\n\n{bullets(sections[title])}\n" for title in SECTIONS[:-1] if title in sections
    ]
    if further := options_of(value):
        parts = [ELSEWHERE.sub("see Options", part) for part in parts]
        parts.append(f"Options:\n\n{bullets(further)}\n")
    if isinstance(value, type):
        parts += describe_class(value)
    codes = [value, *(member for _, member in public_members(value))]
    parts += [f"```python\n{code}\n```\n" for code in map(example, codes) if code]
    return "\n".join(parts)


def options_of(value: Any) -> str:
    """What the docstring of a class of options says of each, where a function takes them; else empty."""
    if isinstance(value, type):
        return ""
    for parameter in inspect.signature(inspect.unwrap(value)).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            [options] = parameter.annotation.__args__
            return split_docstring(inspect.getdoc(options) or "")[1].get("Attributes", "")
    return ""


def split_docstring(text: str) -> tuple[str, dict[str, str]]:
    """What comes before the sections, and the text of each section."""
    pieces = re.split(rf"^({'|'.join(SECTIONS)}):\n", text, flags=re.MULTILINE)
    sections = {
        title: textwrap.dedent(body).strip("\n")
        for title, body in zip(pieces[1::2], pieces[2::2], strict=True)
    }
    return as_markdown(pieces[0].strip()), sections


def example(value: Any) -> str:
    """The example of a docstring as code that imports ``mil`` alone; empty where it has none."""
    text = split_docstring(inspect.getdoc(value) or "")[1].get("Example", "")
    if ">>>" in text:
        text = "\n".join(filter(None, map(undoctest, text.splitlines())))
    for name in re.findall(r"^from features\.[\w.]+ import (\w+)\n", text, flags=re.MULTILINE):
        text = re.sub(rf"^from features.* import {name}\n", "", text, flags=re.MULTILINE)
        text = re.sub(rf"\b{name}\b", f"mil.{name}", text)
    return re.sub(rf"\bfeatures\.({'|'.join(mil.__all__)})\b", r"mil.\1", text)


def undoctest(line: str) -> str:
    """A line of a doctest as code: without its prompt, and what is printed as a comment."""
    if line.startswith((">>>", "...")):
        return line[4:]
    return f"# {line}" if line.strip() and not line.endswith(":") else ""


def bullets(body: str) -> str:
    """Entries of a section as a list; a section of plain text stays text."""
    entries = re.split(r"\n(?=\S)", body)
    if not all(re.match(r"[\w, *]+: ", entry) for entry in entries):
        return as_markdown(body)
    return "\n".join(
        f"- `{name}`: {as_markdown(' '.join(text.split()))}"
        for name, _, text in (entry.partition(": ") for entry in entries)
    )


def as_markdown(text: str) -> str:
    """Double backticks become single ones."""
    return text.replace("``", "`")


def signature(name: str, value: Any) -> list[str]:
    """How a function is called, or what a class is derived from."""
    if not isinstance(value, type):
        return [f"```text\n{call(f'mil.{name}', node_of(value))}\n```\n"]
    bases = [base.__name__ for base in value.__bases__ if is_public(base)]
    return [f"Derived from `mil.{bases[0]}`.\n"] if bases else []


def is_public(value: type) -> bool:
    """Whether ``mil`` offers this very class, and not another of its name, as `typing.Protocol` is."""
    return value.__name__ in mil.__all__ and getattr(mil, value.__name__) is value


def _default(field: "dataclasses.Field[Any]") -> str:
    return "" if field.default is dataclasses.MISSING else f" = {field.default!r}"


def describe_class(value: type) -> list[str]:
    """Its settings with their defaults, its methods and properties with their first sentences and errors."""
    settings = [
        f"- `{field.name}{_default(field)}`: {field.metadata['help']}"
        for field in (dataclasses.fields(value) if dataclasses.is_dataclass(value) else ())
        if "help" in field.metadata
    ]
    methods = []
    for name, member in public_members(value):
        text, sections = split_docstring(inspect.getdoc(member) or "")
        text = " ".join([*text.split("\n\n")[0].split(), *errors_of(sections)])
        methods.append(f"- `{shown(name, member)}`: {text}")
    parts = [("Settings", settings), ("Methods and properties", methods)]
    return ["\n".join([f"{title}:\n", *lines, ""]) for title, lines in parts if lines]


def shown(name: str, member: Any) -> str:
    """How a method is called, on one line; what a property returns."""
    if not isinstance(member, property):
        return unquote(one_line(name, node_of(member)))
    returns = node_of(member.fget).returns
    return f"{name}: {unquote(ast.unparse(returns).strip(QUOTES))}" if returns else name


def errors_of(sections: dict[str, str]) -> list[str]:
    """The errors that a method raises, by name."""
    names = re.findall(r"^([A-Z][\w, ]+): ", sections.get("Raises", ""), flags=re.MULTILINE)
    return (
        [f"Raises {', '.join(f'`{name}`' for name in ', '.join(names).split(', '))}."]
        if names
        else []
    )


def public_members(value: Any) -> list[tuple[str, Any]]:
    """The public methods and properties of a class: its own, and those of bases that have no section."""
    members = []
    classes = [
        owner
        for owner in getattr(value, "__mro__", ())
        if owner is value
        or (owner.__module__.startswith(("mil.", "features.")) and not is_public(owner))
    ]
    named = {name: member for owner in reversed(classes) for name, member in vars(owner).items()}
    for name, member in named.items():
        function = getattr(member, "__func__", member)
        public = name == "__getitem__" or not name.startswith("_")
        if public and (inspect.isfunction(function) or isinstance(member, property)):
            members.append((name, member if isinstance(member, property) else function))
    return members


def node_of(function: Any) -> ast.FunctionDef:
    """The definition of a function."""
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
    node = ast.parse(source).body[0]
    assert isinstance(node, ast.FunctionDef)
    return node


def call(name: str, node: ast.FunctionDef) -> str:
    """A definition without its body, on a line for each parameter where one does not hold them."""
    line = unquote(one_line(name, node))
    if len(line) <= WIDTH:
        return line
    _, _, returns = line.rpartition(" -> ")
    return unquote("\n    ".join([f"{name}(", *split_arguments(node.args)]) + f"\n) -> {returns}")


def one_line(name: str, node: ast.FunctionDef) -> str:
    """A definition without its body and without the object that it belongs to."""
    returns = ast.unparse(node.returns).strip(QUOTES) if node.returns else "None"
    arguments = re.sub(r"^(self|cls)(, /)?(, |$)", "", ast.unparse(node.args))
    return f"{name}({arguments}) -> {returns}"


def split_arguments(arguments: ast.arguments) -> list[str]:
    """One parameter a line."""
    text = ast.unparse(arguments)
    depth, parts, current = 0, [], ""
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and not depth:
            parts.append(f"{current.strip()},")
            current = ""
        else:
            current += character
    return [*parts, f"{current.strip()},"]


def unquote(line: str) -> str:
    """Annotations that are written as text, without their quotation marks."""
    return re.sub(r"(?<=: )'([^']*)'", r"\1", line).replace("=", " = ")


if __name__ == "__main__":
    (Path(__file__).parent / "api.md").write_text(write_page())
