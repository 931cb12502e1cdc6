"""The README and the pages of the manual, with the commands that they show."""

import re
from pathlib import Path

REPO = Path(__file__).parent.parent
README = REPO / "README.md"
DOCS = REPO / "docs"
# The pages in the order of the menu, in which their commands are run.
PAGES = [DOCS / name for name in re.findall(r"(\S+\.md)$", (REPO / "mkdocs.yml").read_text(), re.M)]
# By programs; the examples of the API are run elsewhere.
WRITTEN = {DOCS / "api.md", DOCS / "messages.md"}
# Their commands are for real data, and are run on made data of that form.
REAL_CASES = [DOCS / "bone-sarcoma.md", DOCS / "soft-tissue-mri.md"]
TEXTS = {path: path.read_text() for path in [README, *PAGES]}


def blocks(language, paths=tuple(TEXTS)):
    """The fenced blocks of a language on these pages."""
    texts = (TEXTS[path] for path in paths if path not in WRITTEN)
    pattern = rf"```{language}\n(.*?)```"
    return [block for text in texts for block in re.findall(pattern, text, flags=re.DOTALL)]


def commands(paths=(*PAGES, README)):
    """Every command once, in the order of the manual."""
    lines = [line for block in blocks("console", paths) for line in block.splitlines()]
    return list(dict.fromkeys(line for line in lines if line.strip()))
