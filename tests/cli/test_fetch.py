"""`mil fetch`: what it prints, and with which status it ends."""

import csv
import shlex

import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.options import UsageError
from mil.errors import FetchError
from mil.fetch import space
from tests.manual import DOCS, TEXTS, blocks, commands
from tests.mil.fetch.made_services import real_sarcomas, running


@pytest.fixture
def network(monkeypatch):
    with running() as network:
        monkeypatch.setenv("SARCOMIL_GDC_SERVER", network.address)
        yield network


def call(*arguments):
    done = CliRunner().invoke(app, ["fetch", *map(str, arguments)], env={"COLUMNS": "200"})
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def test_a_dry_run_shows_cases_bytes_and_spellings(network, tmp_path):
    out = tmp_path / "out"
    shown = call(
        "tcga-sarc", "--subtypes", "SS,DF", "--max-per-subtype", 2, "--out", out, "--dry-run"
    )
    lines = shown.stdout.splitlines()
    assert lines[0] == "TCGA-SARC:"
    assert [line.split() for line in lines[1:5]] == [
        ["cases", "chosen", "files", "bytes"],
        ["SS", "3", "2", "2", "0.0", "MB"],
        ["DF", "1", "1", "1", "0.0", "MB"],
        ["all", "3", "0.0", "MB"],
    ]
    assert (
        "  SS: Sarcoma; synovial; poorly differentiated (1), Synovial Sarcoma - Biphasic (1), "
        "Synovial Sarcoma - Monophasic (1)" in lines
    )
    assert "  no label: Chordoma (1), Leiomyosarcoma, NOS + Carcinoma, NOS (1)" in lines
    assert "Myxofibrosarcoma" not in shown.stdout  # of other subtypes
    assert "slides of normal tissue or controls (3)" in shown.stdout
    assert lines[-1].startswith("Dry run, nothing is written: 0.0 MB; ")
    assert not out.exists()


@pytest.mark.realdata
def test_the_manual_shows_what_the_real_list_gives(network, realdata, tmp_path, monkeypatch):
    network.files, network.cases = real_sarcomas(realdata / "tables")
    page = DOCS / "tcga-sarc.md"
    monkeypatch.chdir(tmp_path)
    shown = call(*shlex.split(commands([page])[0])[2:]).stdout
    [printed] = blocks("text", [page])
    assert shown.startswith(printed)
    whole = call("tcga-sarc", "--out", "all", "--dry-run").stdout.splitlines()
    assert whole[len(printed.splitlines()) + 2].split() == ["all", "254", "389.0", "GB"]
    assert "254 cases and 389 gigabytes, 1.5 for a slide" in " ".join(TEXTS[page].split())


def test_files_are_fetched_once_and_the_next_verb_is_named(network, tmp_path):
    arguments = ("tcga-sarc", "--subtypes", "SS", "--out", tmp_path, "--wait", 0)
    first = call(*arguments)
    assert "3 files fetched, 0.0 MB. Where each came from:" in first.stdout
    assert f"mil check {tmp_path / 'cohort.csv'} --slides {tmp_path / 'slides'}" in first.stdout
    assert "0 files fetched, 0.0 MB; 3 were there already" in call(*arguments).stdout
    beginnings = call(*arguments, "--dry-run").stdout
    assert "of which 0.0 MB are there" in beginnings


def test_a_dry_run_and_the_fetch_judge_the_disk_alike(network, tmp_path, monkeypatch):
    monkeypatch.setattr(space, "free_bytes", lambda folder: 100_000_300)
    arguments = ("tcga-sarc", "--subtypes", "DF", "--out", tmp_path / "x")
    shown = call(*arguments, "--dry-run")
    with pytest.raises(FetchError, match="kept free") as caught:
        call(*arguments)
    assert str(caught.value) in shown.stderr


def test_a_file_that_fails_ends_with_status_1(network, tmp_path):
    [file] = [f for f in network.files if f["file_name"].startswith("TCGA-DX-A017-01Z-00-DX1.")]
    network.faults[f"/data/{file['file_id']}"].append("404")
    done = call("tcga-sarc", "--subtypes", "DF,SS", "--out", tmp_path)
    assert done.exit_code == 1
    assert "404 Not Found" in done.stderr
    assert "1 of 4 files failed; the same command tries them again." in done.stderr
    with (tmp_path / "cohort.csv").open(newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["SS"] * 3


def test_another_project_and_another_label(network, tmp_path):
    shown = call(
        "gdc", "--project", "TCGA-SARC", "--label-field", "demographic.gender", "--out", tmp_path,
        "--dry-run",
    ).stdout  # fmt: skip
    assert ["female", "20", "20", "20", "0.0", "MB"] in [
        line.split() for line in shown.splitlines()
    ]
    assert "Labels, and what" not in shown
    named = call(
        "gdc", "--project", "TCGA-LUAD", "--subtypes", "adenocarcinoma, NOS", "--out", tmp_path,
        "--dry-run",
    ).stdout  # fmt: skip
    assert named.splitlines()[2].startswith("Adenocarcinoma, NOS")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tcga-sarc",), "--out is missing"),
        (("gdc", "--out", "x"), "--project is missing"),
        (("idc", "--out", "x"), "COLLECTION is missing"),
        (("tcga-sarc", "--out", "x", "--parallel", 0), "parallel must be at least 1; got 0"),
        (("tcga-sarc", "--out", "x", "--server", "gdc"), "server is an address"),
    ],
)
def test_wrong_use_is_said(arguments, message):
    with pytest.raises(UsageError, match=message):
        call(*arguments)


def test_a_file_as_the_folder_is_refused(tmp_path):
    (tmp_path / "x").touch()
    with pytest.raises(UsageError, match="is a file"):
        call("tcga-sarc", "--out", tmp_path / "x")


def test_no_network_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("SARCOMIL_GDC_SERVER", "http://127.0.0.1:9")
    with pytest.raises(
        FetchError,
        match="Check the connection, and HTTPS_PROXY if this network has a proxy, and run",
    ):
        call("tcga-sarc", "--out", tmp_path / "x", "--retries", 0)


def test_the_command_reads_the_address_of_its_environment(network, mil, tmp_path):
    done = mil(
        "fetch", "gdc", "--project", "TCGA-LUAD", "--out", tmp_path / "x", "--dry-run",
        env={"SARCOMIL_GDC_SERVER": network.address},
    )  # fmt: skip
    assert "Adenocarcinoma, NOS" in done.stdout
