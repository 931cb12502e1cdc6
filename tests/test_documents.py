"""Every command of the README, the manual and the help texts is run as it is printed."""

import csv
import functools
import json
import re
import runpy
import shlex
import shutil
import subprocess

import pytest
from typer.testing import CliRunner

from cli.learn import CrossvalOptions
from cli.main import app
from cli.options import plain
from mil.evaluation.survival.evaluate import CAVEAT
from mil.heads.table import MODELS
from mil.version import __version__
from tests.features.volumes.patients import cohort as write_patients
from tests.manual import PAGES, README, REAL_CASES, REPO, TEXTS, WRITTEN, blocks, commands
from tests.mil.fetch.made_services import running
from tests.verbs import VERBS

# Ten cases show that a command runs as well as twenty do, and of those that open every slide four do.
SUBTYPES = ("DDLPS", "MPNST")
WITH_FEW_SLIDES = (
    "mil check ", "mil finetune ", "mil crossval cohort.csv --finetune ",
    "mil segment train segmentation.csv --slides slides --annotations annotations --out both ",
    "mil extract cohort.csv --slides slides --annotations annotations --out tuned-store ",
)  # fmt: skip


@functools.cache
def help_examples(verb):
    """The examples a verb's help prints, read from what it prints."""
    done = CliRunner().invoke(app, [*verb.split(), "--help"], env={"COLUMNS": "400"})
    assert done.exit_code == 0
    after = done.stdout.split("Examples:")[1]
    return [line.strip() for line in after.splitlines() if line.strip().startswith("mil ")]


def main_command():
    """The manual's cross-validation of the demo cohort, which `mil demo` has run already."""
    [command] = [
        line
        for line in commands()
        if line.startswith("mil crossval cohort.csv store --models") and line.endswith(" --out run")
    ]
    return command


def write_rows(source, table, keep):
    """The rows of a table that are kept."""
    with source.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row for row in rows if keep(row))


def lay_out(demo, folder, few):
    """Two of the demo's subtypes in `folder`, and two cases of each in `few`; the run has all four."""
    with (demo / "cohort.csv").open(newline="") as file:
        label_of = {row["case"]: row["label"] for row in csv.DictReader(file)}
    cases = {label: [case for case in label_of if label_of[case] == label] for label in SUBTYPES}
    chosen = {case for members in cases.values() for case in (members[0], members[-1])}
    absent = {case for case in label_of if label_of[case] not in SUBTYPES}
    for name in ("slides", "annotations"):
        (folder / name).symlink_to(demo / name)
        (few / name).symlink_to(demo / name)
    for name in ("cohort.csv", "split.csv", "segmentation.csv"):
        write_rows(demo / name, folder / name, lambda row: row["case"] not in absent)
    write_rows(demo / "cohort.csv", few / "cohort.csv", lambda row: row["case"] in chosen)
    write_rows(
        demo / "segmentation.csv",
        few / "segmentation.csv",
        lambda row: row["case"] in chosen or row["case"].startswith("normal"),
    )
    (folder / "tuned").symlink_to(few / "tuned")  # what a command there will write
    shutil.copytree(  # `mil external` writes its log there
        demo / "store", folder / "store", ignore=lambda _, __: {f"{case}-s1.h5" for case in absent}
    )
    shutil.copytree(demo / "run", folder / "run")


def write_radiomics(source, folder):
    """Two features of every case of a table, and a second reading of each."""
    with source.open(newline="") as file:
        cases = sorted({row["case"] for row in csv.DictReader(file)})
    for name, offset in (("radiomics.csv", 0.0), ("second-reading.csv", 0.01)):
        rows = [f"{case},{i + offset},{i * i + offset}" for i, case in enumerate(cases)]
        header = "case,original_firstorder_Mean,original_glcm_Contrast"
        (folder / name).write_text("\n".join([header, *rows]) + "\n")


@pytest.fixture(scope="module")
def walked(demo, mil, tmp_path_factory):
    """A user's folder in which every command of the manual, then every further example, was run."""
    folder, few = (tmp_path_factory.mktemp(name) for name in ("study", "few"))
    lay_out(demo, folder, few)
    write_patients(folder / "patients", 3, shape=(8, 32, 32))
    write_radiomics(demo / "cohort.csv", folder)
    pages = [path for path in [*PAGES, README] if path not in REAL_CASES]
    examples = [line for verb in VERBS for line in help_examples(verb)]
    lines = dict.fromkeys(line for line in [*commands(pages), *examples] if line.startswith("mil "))
    del lines[main_command()], lines["mil demo --out demo"]
    failed = []
    with running() as network:  # answers as the Genomic Data Commons do
        for command in lines:
            cwd = few if command.startswith(WITH_FEW_SLIDES) else folder
            env = {"SARCOMIL_GDC_SERVER": network.address}
            done = mil(*shlex.split(command)[1:], cwd=cwd, env=env, check=False)
            if done.returncode:
                failed.append(f"{command}\n{done.stdout}{done.stderr}")
    assert not failed, "\n\n".join(failed)
    return folder


def test_the_manual_shows_every_verb():
    shown = {line.split(" ", 1)[1] + " " for line in commands()}
    assert not [verb for verb in VERBS if not any(line.startswith(verb + " ") for line in shown)]


@pytest.mark.slow
def test_the_demo_has_run_the_manuals_cross_validation(demo):
    """To the last setting, so that it need not be run again."""
    _, _, cohort, store, *words = shlex.split(main_command())
    values = dict(zip(words[::2], words[1::2], strict=True))
    options = CrossvalOptions(
        cohort=demo / cohort,
        store=demo / store,
        out=demo / values.pop("--out"),
        models=tuple(values.pop("--models").split(",")),
        folds=values.pop("--folds"),
    )
    assert not values
    run = json.loads((demo / "run" / "run.json").read_text())
    assert (run["command"], run["complete"]) == ("crossval", True)
    assert json.loads(json.dumps(plain(options))) == run["settings"]


@pytest.mark.slow
def test_the_manuals_commands_leave_a_report_and_a_run_that_repeats(walked):
    assert (walked / "run" / "report.html").stat().st_size > 10_000
    first, again = (
        (walked / run / "predictions.csv").read_text().splitlines() for run in ("run", "again")
    )
    assert [row for row in first if row.startswith(('"model"', '"mean"'))] == again
    assert len(again) > 20


@pytest.mark.slow
def test_the_manuals_python_runs(walked, script):
    assert script("\n".join(blocks("python")), cwd=walked).split()[0] == "majority"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_shows_an_example(verb):
    assert help_examples(verb)


def test_every_make_target_exists():
    targets = [line.split()[1] for line in commands() if line.startswith("make ")]
    assert set(targets) == {"demo", "test"}
    for target in [*targets, "check", "bench", "docs", "pictures"]:
        subprocess.run(["make", "-n", target], cwd=REPO, check=True, capture_output=True)


def test_only_commands_that_are_run_here_are_shown():
    assert {line.split()[0] for line in commands()} == {"mil", "make"}
    shown = set(
        re.findall(
            r"^```(\w*)$", "\n".join(TEXTS[path] for path in TEXTS if path not in WRITTEN), re.M
        )
    )
    assert shown - {""} <= {"console", "python", "csv", "toml", "text"}


def test_the_demo_is_run_as_its_help_says():
    assert help_examples("demo") == ["mil demo --out demo"]


def test_the_manual_says_of_the_log_rank_p_what_every_run_says():
    assert f"is {CAVEAT}" in " ".join(TEXTS[REPO / "docs" / "survival-and-grade.md"].split())


def test_no_page_names_a_path_or_address_of_a_machine():
    for path, text in TEXTS.items():
        assert not re.search(r"/(home|root|work|tmp|Users)/", text), path
        assert path in WRITTEN or not re.search(r"https?://", text), path


def test_the_readme_is_short():
    assert len(TEXTS[README].splitlines()) <= 120


def test_the_citation_and_the_changelog_are_of_this_version():
    newest = re.search(r"^## (\S+) - (\S+)$", (REPO / "CHANGELOG.md").read_text(), re.M).groups()
    cited = dict(
        re.findall(r"^(version|date-released): (\S+)$", (REPO / "CITATION.cff").read_text(), re.M)
    )
    assert newest == (__version__, cited["date-released"])
    assert cited["version"] == __version__


def anchors(text):
    """Of the headings of a page, as Markdown renderers make them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.M)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings
    }


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_links_and_pictures_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[path].replace("\n", " ")):
        name, _, anchor = target.partition("#")
        to = (path.parent / name).resolve() if name else path
        assert to.exists(), target
        assert not anchor or anchor in anchors(to.read_text()), target


def test_every_page_and_picture_is_shown():
    assert {path.name for path in (REPO / "docs").glob("*.md")} == {path.name for path in PAGES}
    shown = set(re.findall(r"pictures/([\w-]+\.png)", "\n".join(TEXTS.values())))
    assert {path.name for path in (REPO / "docs" / "pictures").glob("*")} == shown


def test_every_model_is_named_in_the_manuals_table_of_models():
    rows = [line for line in TEXTS[REPO / "docs" / "models.md"].splitlines() if line[:3] == "| `"]
    named = [name for row in rows for name in re.findall(r"`([\w-]+)`", row.split("|")[1])]
    assert sorted(named) == sorted(MODELS)


def test_the_list_of_messages_is_current():
    written = runpy.run_path(str(REPO / "docs" / "make_messages.py"))["write_page"]()
    assert written == TEXTS[REPO / "docs" / "messages.md"], "Run make pages."


def test_ci_calls_the_readmes_test_command_and_nothing_else():
    steps = [
        line
        for line in (REPO / ".ci" / "run").read_text().splitlines()
        if not line.startswith("#!")
    ]
    assert steps == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', "make test"]
