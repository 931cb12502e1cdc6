"""Writes docs/messages.md (`make pages`): the errors of the command, with what to do about each."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from cli import main
from cli.flags import OF_ALL_VERBS, with_flags

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
REMEDY = re.compile(
    r"(Add|Ask|Check|Choose|Convert|Copy|Correct|Draw|Extract|Fill|Finish|Fit|Give|Install|Leave|Look|Make|Name"
    r"|Open|Pack|Pass|Put|Read|Remove|Rename|Run|Save|Say|Set|Start|State|Take|Try|Update|Use|Wait|Write) "
)
# Functions whose texts are errors, or the middle of one.
PROBLEM = re.compile(
    r"problem|reason|misfit|mismatch|doubt|error|unexpected|refuse|unreadable|unusable|unfit|other_size|open_run"
    r"|fetch_weights|no_weights|no_slides|no_tile|no_input|suggest|check_free|check_project"
)
FEWEST_WORDS = 4  # of its own, for somebody to search for
INTRODUCTION = """\
# Messages

Every error says what is wrong, what was found, and what to do about it. They are listed here, with the parts
of longer ones and with remarks, so that a search finds them; … stands for a name or a number of yours. They
stand here as the command shows them: where it says "Set --backbone to …", Python says "Set backbone to …".
"""


def write_page() -> str:
    """The page as Markdown."""
    listed: dict[str, set[str]] = {subject: set() for subject in SUBJECTS.values()}
    for root in ("features", "mil", "cli"):
        for path in sorted((REPO / root).rglob("*.py")):
            name = path.relative_to(REPO).as_posix()
            subject = next(SUBJECTS[place] for place in SUBJECTS if name.startswith(place))
            listed[subject].update(with_flags(text, OF_ALL_VERBS) for text in messages(path))
    parts = [INTRODUCTION]
    for subject, texts in listed.items():
        if texts:
            lines = (
                f"- {text}" for text in sorted(texts, key=lambda text: (text.lstrip("… :`'"), text))
            )
            parts.append("\n".join([f"## {subject}", "", *lines, ""]))
    return "\n".join(parts)


def messages(path: Path) -> Iterator[str]:
    """The texts of the errors that a file raises, or makes for others to raise, with … for values."""
    for text in _all_messages(ast.parse(path.read_text(encoding="utf-8"))):
        words = " ".join(text.split()).lstrip(",. ")
        if len(re.findall(r"[^\W\d_]+", words)) >= FEWEST_WORDS and "charset" not in words:
            yield words


def _all_messages(tree: ast.AST) -> Iterator[str]:
    """Messages and parts of messages, however short."""
    for node in ast.walk(tree):
        match node:
            case ast.Raise(exc=ast.Call(func=ast.Name(id=name), args=[text, *_])) if is_shown(name):
                yield template(text)
            case ast.FunctionDef() if PROBLEM.search(node.name):
                yield from map(template, texts_of(node))
    yield from filter(says_a_problem, map(template, texts_of(tree)))


def texts_of(node: ast.AST) -> Iterator[ast.expr]:
    """The texts of a file that are neither part of another, nor documentation, nor help of an option."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Expr(value=ast.Constant()) | ast.Raise() | ast.arguments():
                continue
            case ast.Dict(keys=keys, values=values):
                for key, value in zip(keys, values, strict=True):
                    if not (isinstance(key, ast.Constant) and key.value == "help"):
                        yield from texts_of(ast.Expr(value))
            case ast.JoinedStr() | ast.Constant(value=str()):
                yield child
            case ast.BinOp(op=ast.Add()) if template(child):
                yield child
            case _:
                yield from texts_of(child)


def says_a_problem(words: str) -> bool:
    """Whether a text is of the form of an error: what is wrong, then what to do."""
    sentences = re.split(r"(?<=[.;:]) ", words)
    return len(sentences) > 1 and bool(REMEDY.match(sentences[-1]) or REMEDY.match(sentences[-2]))


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
            return re.sub(r"{\w*}", "…", words)  # filled in by format()
        case ast.JoinedStr(values=parts):
            return "".join(
                str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts
            )
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return (template(left) or "…") + (template(right) or "…")
        case ast.IfExp(body=body):
            return template(body)
    return ""


if __name__ == "__main__":
    (Path(__file__).parent / "messages.md").write_text(write_page(), encoding="utf-8")
