"""Writes docs/messages.md: the errors of the command, each with what to do, so that a search finds them."""

import ast
from collections.abc import Iterator
from pathlib import Path

from cli import main
from cli.flags import use_flags, with_flags

assert main.app  # imported for the flags of all verbs

REPO = Path(__file__).parent.parent
SUBJECTS = {  # of messages, by where they come from; the first that fits
    "features/volumes": "CT and MRI",
    "mil/contouring": "CT and MRI",
    "mil/radiomics": "CT and MRI",
    "mil/data/volumes.py": "CT and MRI",
    "cli/volumes.py": "CT and MRI",
    "features/regions": "Annotations",
    "features/backbones": "Encoders and weights",
    "features/slides": "Slides",
    "features/lowpower": "Finding the tumour",
    "mil/segmentation": "Finding the tumour",
    "cli/segment.py": "Finding the tumour",
    "features/extraction/films.py": "CT and MRI",
    "features/extraction": "Extraction",
    "cli/extract.py": "Extraction",
    "features/bags": "Bags and features of other tools",
    "features": "Settings of extraction, and files",
    "mil/fetch": "Public cohorts",
    "mil/data": "The table and the folds",
    "mil/evaluation": "Predictions and judging",
    "mil/finetune": "Fine-tuning",
    "mil/explanation": "Explaining",
    "mil/concepts": "Explaining",
    "mil/protocols": "Published studies",
    "mil/answers": "New slides",
    "mil/runs": "Runs",
    "mil": "Learning, and its settings",
    "cli": "Options of the command",
}
SHORTEST = 12  # of messages; what is shorter is filled in elsewhere
INTRODUCTION = """\
# Messages

Every error says what is wrong, what was found, and what to do about it. They are listed here so that the
search finds them; … stands for a name or a number of yours. From Python, errors name parameters where the
command shows options.
"""


def write_page() -> str:
    """The page as Markdown."""
    use_flags({})  # of no verb
    listed: dict[str, set[str]] = {subject: set() for subject in SUBJECTS.values()}
    for root in ("features", "mil", "cli"):
        for path in sorted((REPO / root).rglob("*.py")):
            name = path.relative_to(REPO).as_posix()
            subject = next(SUBJECTS[place] for place in SUBJECTS if name.startswith(place))
            listed[subject].update(with_flags(text) for text in messages(path))
    parts = [INTRODUCTION]
    for subject, texts in listed.items():
        if texts:
            lines = (
                f"- {text}" for text in sorted(texts, key=lambda text: (text.lstrip("… :`'"), text))
            )
            parts.append("\n".join([f"## {subject}", "", *lines, ""]))
    return "\n".join(parts)


def messages(path: Path) -> Iterator[str]:
    """The texts of the errors that a file raises, with … where values are filled in."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Raise(exc=ast.Call(func=ast.Name(id=name), args=[text, *_])) if is_shown(name):
                if len(words := template(text)) > SHORTEST:
                    yield words


def is_shown(error: str) -> bool:
    """Whether users see such errors."""
    return error not in {
        "ValueError",
        "TypeError",
        "AssertionError",
        "AttributeError",
        "SystemExit",
    }


def template(text: ast.expr) -> str:
    """A message as users see it; empty if it is put together elsewhere."""
    match text:
        case ast.Constant(value=str(words)):
            return words
        case ast.JoinedStr(values=parts):
            return "".join(
                str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts
            )
    return ""


if __name__ == "__main__":
    (Path(__file__).parent / "messages.md").write_text(write_page(), encoding="utf-8")
