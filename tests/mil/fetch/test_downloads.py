"""Files arrive whole or not at all, are continued where they were cut, and are never fetched twice."""

import email.utils
import errno
import hashlib
import math
import os
import random
import re
import signal
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest

import mil
from features.files.locks import lock
from mil.errors import FetchError
from mil.fetch import client, download, service, space
from mil.fetch.folder import LOCK
from mil.fetch.settings import Transfer
from tests.mil.fetch.made_services import content, md5, slide

SS = {"subtypes": ["SS"], "parallel": 2}  # three slides


def listed(network, case="TCGA-3B-A014"):
    """The file of the list that is fetched for a case."""
    [file] = [f for f in network.files if f["file_name"].startswith(f"{case}-01Z-00-DX1.")]
    return file


def data_path(file):
    return f"/data/{file['file_id']}"


def begin(fetch):
    """Leave what a process leaves that ended before its first byte."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(space, "free_bytes", lambda folder: 0)
        with pytest.raises(FetchError):
            fetch(**SS)


def sums(folder):
    """Checksum by name of everything in the folder of slides."""
    return {p.name: md5(p.read_bytes()) for p in sorted((folder / "slides").glob("*"))}


def promised(cohort):
    return {file.place.partition("/")[2]: file.md5 for file in cohort.files}


def test_files_are_those_that_the_list_promises_and_come_once(network, fetch):
    cohort = fetch(**SS)
    assert sums(fetch.out) == promised(cohort)
    assert network.bytes_sent() == cohort.n_bytes == cohort.downloads.n_bytes
    again = fetch(**SS)
    assert network.bytes_sent() == cohort.n_bytes
    assert (again.downloads.new, len(again.downloads.present)) == ([], 3)
    assert fetch.notes == []


@pytest.mark.parametrize(
    "fault",
    [
        "cut 700",
        "cut 0",
        "408",
        "429",
        "500",
        "502",
        "503",
        "504",
        "507",
        "509",
        "521",
        "530",
        "598",
    ],
)
def test_what_fails_for_a_while_is_repeated(network, fetch, fault):
    file = listed(network)
    network.faults[data_path(file)].extend([fault, fault])
    cohort = fetch(**SS)
    assert sums(fetch.out) == promised(cohort)
    assert network.sent[data_path(file)] == file["file_size"]  # no byte twice
    ranges = [r for _, path, r in network.requests if path == data_path(file)]
    expected = ["", "bytes=700-", "bytes=1400-"] if fault == "cut 700" else ["", "", ""]
    assert ranges == expected


@pytest.mark.parametrize("endpoint", ["/files", "/cases"])
def test_questions_are_repeated_too(network, fetch, endpoint):
    network.faults[endpoint].extend(["503", "500"])
    assert len(fetch(dry_run=True, **SS).files) == 3
    network.faults[endpoint].extend(["503"] * 4)
    with pytest.raises(FetchError, match="503 Service Unavailable, 4 times in a row"):
        fetch(dry_run=True, **SS)


def test_a_connection_that_is_cut_each_time_brings_a_file_if_each_brings_something(network, fetch):
    file = listed(network)
    network.faults[data_path(file)].extend(
        ["cut 100"] * 9
    )  # three times as many as are tried in vain
    cohort = fetch(**SS)
    assert sums(fetch.out) == promised(cohort)
    assert network.sent[data_path(file)] == file["file_size"]


def test_a_file_that_does_not_arrive_is_said_and_the_others_are_there(network, fetch):
    file = listed(network)
    network.faults[data_path(file)].extend(["cut 900", *["503"] * 9])
    cohort = fetch(**SS)
    [reason] = cohort.failed
    assert file["file_name"] in reason
    assert "503 Service Unavailable, 4 times in a row" in reason
    assert len(cohort.table.read_text().splitlines()) == 3  # header and two slides
    assert [p.suffix for p in sorted((fetch.out / "slides").iterdir())].count(".part") == 1
    network.faults.clear()
    later = fetch(**SS)
    assert not later.failed
    assert len(later.table.read_text().splitlines()) == 4
    assert network.bytes_sent() == cohort.n_bytes  # the 900 bytes were not fetched again
    assert sums(fetch.out) == promised(cohort)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("404", "any more"),
        ("403", "permission"),
        ("418", "later"),
        ("501", "another mirror"),
        ("505", "another mirror"),
    ],
)
def test_a_refusal_is_not_repeated(network, fetch, status, words):
    file = listed(network)
    network.faults[data_path(file)].append(status)
    [reason] = fetch(**SS).failed
    assert status in reason
    assert words in reason
    assert sum(path == data_path(file) for _, path, _ in network.requests) == 1


def test_the_remedy_of_a_servers_fault_is_not_the_connection(network, fetch):
    file = listed(network)
    network.faults[data_path(file)].extend(["522"] * 9)
    [reason] = fetch(**SS).failed
    assert "522, 4 times in a row. The server, or a proxy, refuses for now: run" in reason
    assert "Check" not in reason


def test_a_file_that_arrives_compressed_is_said(network, fetch):
    network.faults[data_path(listed(network))].append("coded br")
    [reason] = fetch(**SS).failed
    assert "arrives compressed (br)" in reason


def test_a_circle_of_redirects_is_said(network, fetch):
    network.faults[data_path(listed(network))].extend(["redirect"] * 60)
    [reason] = fetch(**SS).failed
    assert "redirects. Check the address" in reason


def test_an_address_may_be_in_capitals(network, fetch):
    assert fetch(server=network.address.replace("http", "HTTP"), dry_run=True, **SS).files


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "all_proxy",
            "socks5h://me:secret@127.0.0.1:1",
            "all_proxy is a SOCKS proxy, for which the",
        ),
        ("HTTPS_PROXY", "gopher://me:secret@x:1", "HTTPS_PROXY begins with gopher://. A proxy's"),
        ("SSL_CERT_FILE", "/nowhere/x.pem", r"in SSL_CERT_FILE \(/nowhere/x\.pem\) cannot be read"),
    ],
)
def test_an_environment_that_cannot_be_used_is_said(fetch, monkeypatch, name, value, message):
    monkeypatch.setenv(name, value)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    client._certificates.cache_clear()
    monkeypatch.setitem(sys.modules, "socksio", None)
    with pytest.raises(FetchError, match=message) as caught:
        fetch(dry_run=True)
    assert "secret" not in str(caught.value)


def test_a_wrong_checksum_is_fetched_anew_once(network, fetch):
    file = listed(network)
    network.faults[data_path(file)].append("wrong")
    cohort = fetch(**SS)
    assert sums(fetch.out) == promised(cohort)
    assert network.sent[data_path(file)] == 2 * file["file_size"]


def test_a_checksum_that_stays_wrong_leaves_nothing(network, fetch):
    file = listed(network)
    network.contents[file["file_id"]] = content("another", file["file_size"])
    [reason] = fetch(**SS).failed
    assert f"arrived 2 times with md5 {md5(content('another', file['file_size']))}" in reason
    assert not list((fetch.out / "slides").glob(f"{file['file_name']}*"))


@pytest.mark.parametrize("change", [-5, 5, 100_000])
def test_a_file_of_another_size_than_listed_is_said(network, fetch, change):
    file = listed(network)
    size = file["file_size"] + change
    network.contents[file["file_id"]] = content("another", size)
    [reason] = fetch(**SS).failed
    assert f"has {size:,} bytes and lists {file['file_size']:,}" in reason
    assert not (fetch.out / "slides" / file["file_name"]).exists()


@pytest.mark.parametrize("change", [0, 5])
def test_a_server_need_not_say_how_much_it_sends(network, fetch, change):
    file = listed(network)
    network.faults[data_path(file)].append("no length")
    whole = content(file["file_id"], file["file_size"])
    network.contents[file["file_id"]] = whole + b"x" * change
    cohort = fetch(**SS)
    assert [f"has over {file['file_size']:,} bytes" in reason for reason in cohort.failed] == [
        True
    ] * (change > 0)
    assert (fetch.out / "slides" / file["file_name"]).exists() == (change == 0)


def test_a_file_that_changes_size_between_two_requests_is_said(network, fetch):
    file = listed(network)
    whole = content(file["file_id"], file["file_size"])
    network.faults[data_path(file)].append("cut 700")
    network.contents[file["file_id"]] = lambda: (
        whole[:-9] if network.sent[data_path(file)] else whole
    )
    [reason] = fetch(**SS).failed
    assert f"has {file['file_size'] - 9:,} bytes and lists {file['file_size']:,}" in reason


def test_a_server_that_ignores_ranges_sends_it_all_again(network, fetch):
    file = listed(network)
    network.faults[data_path(file)].extend(["cut 800", "no range"])
    cohort = fetch(**SS)
    assert sums(fetch.out) == promised(cohort)
    assert network.sent[data_path(file)] == 800 + file["file_size"]


def test_a_server_that_ignores_ranges_and_cuts_at_one_place_is_given_up(network, fetch):
    file = listed(network)
    network.faults[data_path(file)].extend(["no range, cut 800"] * 20)
    [reason] = fetch(**SS).failed
    assert reason.startswith(f"slides/{file['file_name']}: the connection")
    assert "4 times in a row" in reason
    assert len(network.faults[data_path(file)]) == 20 - 4


def test_a_server_that_sends_another_part_is_refused(network, fetch, monkeypatch):
    file = listed(network)
    network.faults[data_path(file)].extend(["cut 700", "shifted"])
    [reason] = fetch(**SS).failed
    assert "another part than was asked for" in reason


def test_the_server_says_when_to_come_back(network, fetch):
    file = listed(network)
    network.faults[data_path(file)].append("429 after 0.3")
    started = time.monotonic()
    assert not fetch(**SS).failed
    assert time.monotonic() - started > 0.3


def test_a_pause_holds_for_all_files(network, fetch):
    for file in network.files:
        network.faults[data_path(file)].append("503 after 0.2")
    started = time.monotonic()
    assert not fetch(**SS, wait_s=0.0).failed
    assert 0.2 < time.monotonic() - started < 3 * 0.2 + 0.5


def test_a_pause_of_hours_is_not_waited_for(network, fetch):
    file = listed(network)
    network.faults[data_path(file)].append("429 after 7200")
    [reason] = fetch(**SS).failed
    assert "asks to come back in 120 minutes" in reason


@pytest.mark.parametrize("text", ["9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_pause_without_end_is_said_in_few_words(network, fetch, text):
    network.faults[data_path(listed(network))].append(f"503 after {text}")
    [reason] = fetch(**SS).failed
    assert "asks to come back in more than two days" in reason


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7),
        (" 0.5", 0.5),
        ("-3", 0),
        ("", 0),
        ("soon", 0),
        ("inf", 0),
        ("nan", 0),
        ("1e300", 0),
        ("date", 90),
    ],
)
def test_the_time_to_come_back_is_a_number_or_a_date(text, seconds):
    if text == "date":
        text = email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=90))
    assert service._retry_after_s(text) == pytest.approx(seconds, abs=2)


def test_waits_double_with_jitter_up_to_a_minute():
    waited, noted = [], []

    class Patient:
        has_answered = True
        sleep = waited.append
        notify = noted.append

    attempts = service.Attempts(Transfer(retries=12, wait_s=1.0), Patient())
    for _ in range(12):
        attempts.failed("x", service.Passing("cut"))
    bounds = [min(2.0**i, 60.0) for i in range(12)]
    assert all(bound / 2 <= s <= bound for s, bound in zip(waited, bounds, strict=True))
    assert len({s / bound for s, bound in zip(waited, bounds, strict=True)}) > 6
    with pytest.raises(FetchError, match="13 times in a row"):
        attempts.failed("x", service.Passing("cut"))
    assert len(noted) == sum(seconds >= 10 for seconds in waited) > 6
    assert noted[-1] == f"x: cut. Waiting {math.ceil(waited[-1])} s, then try 13 of 13."


@pytest.mark.parametrize(
    ("lost_s", "has_answered", "n_notes"), [(40, True, 2), (3, True, 0), (3, False, 2)]
)
def test_time_that_a_silent_server_costs_is_noted_at_once(lost_s, has_answered, n_notes):
    noted = []

    class Patient:
        sleep = staticmethod(lambda _: None)
        notify = noted.append

    Patient.has_answered = has_answered
    attempts = service.Attempts(Transfer(retries=2, wait_s=0.2), Patient())
    for _ in range(2):
        attempts.failed("x", service.Passing("no answer", lost_s=lost_s))
    expected = [f"x: no answer. Waiting 1 s, then try {n} of 3." for n in (2, 3)]
    assert noted == expected[:n_notes]
    with pytest.raises(FetchError, match="3 times in a row") as caught:
        attempts.failed("x", service.Passing("no answer", lost_s=lost_s))
    assert ("HTTPS_PROXY" in str(caught.value)) is not has_answered


def test_no_more_files_come_at_once_than_are_set(network, fetch):
    network.delay_s = 0.02
    fetch(parallel=3)
    assert 2 <= network.busiest <= 3


@pytest.mark.parametrize(("retries", "times"), [(1, 2), (8, 3)])
def test_a_server_that_never_answers_is_given_up_soon(fetch, retries, times):
    with pytest.raises(
        FetchError, match=rf"the connection failed.*, {times} times in a row.*_PROXY"
    ):
        fetch(server="http://127.0.0.1:9", retries=retries)
    assert [f"try {n} of {times}" in note for n, note in enumerate(fetch.notes, 2)] == (
        [True] * (times - 1)
    )


def test_a_stalled_server_times_out(network, fetch):
    network.delay_s = 0.6
    cohort = fetch(subtypes=["DF"], timeout_s=0.15, retries=1)
    assert "no answer within 0.15 s, 2 times in a row" in cohort.failed[0]


def test_a_disk_without_room_is_noticed_before_a_byte_is_fetched(network, fetch, monkeypatch):
    monkeypatch.setattr(space, "free_bytes", lambda folder: 100_005_000)
    with pytest.raises(FetchError, match=r"The files need 0\.0 MB, and 100\.0 MB are free"):
        fetch(**SS)
    assert network.bytes_sent() == 0


@pytest.mark.parametrize(("free", "enough"), [(160_000_000, True), (149_999_999, False)])
def test_a_part_of_the_disk_stays_free(tmp_path, monkeypatch, free, enough):
    monkeypatch.setattr(space, "free_bytes", lambda folder: free)
    problem = space.space_problem(tmp_path, 50_000_000)
    assert enough or "50.0 MB, and 150.0 MB are free" in problem
    assert ("of which 100.0 MB are kept free" in problem) is not enough


def test_a_disk_that_fills_up_stops_the_work_and_is_continued(network, fetch, monkeypatch):
    file = listed(network)
    cohort = fetch(**SS, dry_run=True)
    [remote] = [one for one in cohort.files if one.id == file["file_id"]]
    part = remote.part(fetch.out)
    begin(fetch)
    part.parent.mkdir(parents=True)
    part.symlink_to("/dev/full")
    with pytest.raises(FetchError, match="the disk is full"):
        fetch(**SS)
    part.unlink()
    assert not (fetch.out / "cohort.csv").exists()
    cohort = fetch(**SS)
    assert sums(fetch.out) == promised(cohort)


def test_a_folder_that_becomes_unwritable_is_an_error_of_the_system(network, fetch, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(download, "_receive", refuse)
    with pytest.raises(OSError, match="Read-only"):
        fetch(**SS)


def test_a_part_of_another_version_is_not_continued(network, fetch):
    file = listed(network)
    network.faults[data_path(file)].extend(["cut 900", *["503"] * 9])
    fetch(**SS)
    network.faults.clear()
    file["md5sum"] = md5(content("newer", file["file_size"]))
    network.contents[file["file_id"]] = content("newer", file["file_size"])
    cohort = fetch(**SS)
    assert sums(fetch.out) == promised(cohort)
    assert network.sent[data_path(file)] == 900 + file["file_size"]


def test_a_part_that_is_not_of_a_fetch_stays(fetch):
    cohort = fetch(subtypes=["DF"])
    place = fetch.out / cohort.files[0].place
    place.unlink()
    names = [f"{place.name}.copy.part", "notes.part", f"{place.name}.{'0' * 12}.part"]
    for name in names:
        (place.parent / name).write_text("x")
    fetch(subtypes=["DF"])
    assert [(place.parent / name).exists() for name in names] == [True, True, False]


def test_a_part_that_is_too_long_is_begun_again(network, fetch):
    [remote] = fetch(subtypes=["DF"], dry_run=True).files
    part = remote.part(fetch.out)
    begin(fetch)
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * (remote.size + 1))
    cohort = fetch(subtypes=["DF"])
    assert sums(fetch.out) == promised(cohort)


def test_a_whole_part_is_verified_and_not_fetched(network, fetch):
    [remote] = fetch(subtypes=["DF"], dry_run=True).files
    part = remote.part(fetch.out)
    begin(fetch)
    part.parent.mkdir(parents=True)
    part.write_bytes(content(remote.id, remote.size))
    inode = part.stat().st_ino
    cohort = fetch(subtypes=["DF"])
    assert sums(fetch.out) == promised(cohort)
    assert network.bytes_sent() == 0
    assert (fetch.out / remote.place).stat().st_ino == inode  # renamed, not copied: whole at once


@pytest.mark.parametrize("longer", [0, 7])
def test_a_file_that_the_service_replaced_is_fetched_again_and_said(network, fetch, longer):
    fetch(**SS)
    file = listed(network)
    newer = content("newer", file["file_size"] + longer)
    file |= {"md5sum": md5(newer), "file_size": len(newer)}
    network.contents[file["file_id"]] = newer
    network.faults[data_path(file)].extend(["404", "404"])
    for _ in range(2):  # the old one stays until the new one is there
        assert fetch(**SS).failed
        assert (fetch.out / "slides" / file["file_name"]).is_file()
    cohort = fetch(**SS)
    assert sums(fetch.out) == promised(cohort)
    assert "the service has replaced it" in fetch.notes[-1]
    assert len(fetch(**SS).downloads.present) == 3


def test_a_file_that_lost_its_end_is_fetched_again(network, fetch):
    cohort = fetch(**SS)
    path = fetch.out / cohort.files[0].place
    path.write_bytes(path.read_bytes()[:-1])
    assert fetch(**SS).downloads.new == [cohort.files[0].place]
    assert sums(fetch.out) == promised(cohort)
    assert "changed or is damaged" in fetch.notes[-1]


def test_a_damaged_file_is_found_by_verification(network, fetch):
    cohort = fetch(**SS)
    path = fetch.out / cohort.files[0].place
    path.write_bytes(b"x" * cohort.files[0].size)
    assert len(fetch(**SS).downloads.present) == 3
    again = fetch(**SS, verify=True)
    assert again.downloads.new == [cohort.files[0].place]
    assert sums(fetch.out) == promised(cohort)
    assert "changed or is damaged" in fetch.notes[-1]


def test_another_selection_in_the_folder_is_said_and_nothing_is_lost(network, fetch):
    fetch(subtypes=["SS"])
    cohort = fetch(subtypes=["DF"])
    assert "subtypes=SS, now DF" in fetch.notes[0]
    assert "3 of the files that are there belong to an earlier selection" in fetch.notes[1]
    assert {row.split(",")[2] for row in cohort.table.read_text().splitlines()[1:]} == {"DF"}
    sent = network.bytes_sent()
    fetch(subtypes=["SS"])
    assert network.bytes_sent() == sent


def test_another_selection_is_said_before_anything_is_fetched(network, fetch, monkeypatch):
    fetch(subtypes=["SS"])
    monkeypatch.setattr(space, "free_bytes", lambda folder: 0)
    with pytest.raises(FetchError, match="are free at"):
        fetch(subtypes=["DF"])
    assert "subtypes=SS, now DF" in fetch.notes[0]


def test_another_project_needs_another_folder(fetch):
    fetch(subtypes=["DF"])
    with pytest.raises(FetchError, match=r"holds files of TCGA-SARC\. Choose another folder"):
        fetch("TCGA-LUAD")


def test_a_table_that_somebody_changed_stays(fetch):
    table = fetch(subtypes=["SS"]).table
    edited = table.read_text().replace("SS", "synovial")
    table.write_text(edited)
    again = fetch(subtypes=["SS"])
    assert table.read_text() == edited
    assert again.table.name == "cohort-fetched.csv"
    assert "cohort.csv was changed after it was written" in fetch.notes[-1]


def test_a_table_beside_a_changed_one_stays_too_once_it_was_changed(fetch):
    table = fetch(subtypes=["SS"]).table
    table.write_text("mine")
    beside = fetch(subtypes=["SS"]).table
    assert fetch(subtypes=["DF"]).table == beside  # as it was written: it may be replaced
    beside.write_text("mine too")
    third = fetch(subtypes=["SS"]).table
    assert (table.read_text(), beside.read_text()) == ("mine", "mine too")
    assert third.name == "cohort-fetched-2.csv"
    assert "The new table is cohort-fetched-2.csv" in fetch.notes[-1]
    assert fetch(subtypes=["SS"]).table == third


def test_a_record_of_a_newer_version_is_neither_read_nor_replaced(network, fetch):
    fetch(subtypes=["DF"])
    record = fetch.out / "fetch.json"
    newer = record.read_text().replace("fetch/1", "fetch/2")
    record.write_text(newer)
    sent = len(network.requests)
    with pytest.raises(FetchError, match="form 'fetch/2', and this version reads 'fetch/1'"):
        fetch(subtypes=["DF"])
    assert record.read_text() == newer
    assert not any("/data" in path for _, path, _ in network.requests[sent:])


@pytest.mark.parametrize("below", ["", "a", "a/b"])
def test_a_folder_that_is_a_file_or_below_one_is_said(network, fetch, below):
    fetch.out.write_text("x")
    with pytest.raises(FetchError, match=f"{fetch.out} is a file, and a folder is needed"):
        fetch(out=fetch.out / below, subtypes=["DF"])
    assert not network.requests


def test_a_folder_in_the_place_of_a_file_is_said(fetch):
    cohort = fetch(subtypes=["DF"])
    place = fetch.out / cohort.files[0].place
    place.unlink()
    place.mkdir()
    with pytest.raises(FetchError, match="is a folder, and a file of this name is fetched"):
        fetch(subtypes=["DF"])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_is_full_from_the_beginning_names_the_folder(fetch, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, "No space")

    monkeypatch.setattr("mil.fetch.folder.write_atomic", refuse)
    with pytest.raises(FetchError, match=re.escape(f"{fetch.out}: the disk is full")):
        fetch(subtypes=["DF"])


def test_files_of_an_earlier_selection_stay_in_the_manifest_while_they_are_there(fetch):
    def rows():
        lines = (fetch.out / "manifest.csv").read_text().splitlines()[1:]
        return dict(line.split(",", 1) for line in lines)

    first = fetch(subtypes=["SS"])
    before = rows()
    cohort = fetch(subtypes=["DF"])
    assert rows().items() > before.items()
    assert list(rows()) == sorted([*before, cohort.files[0].place])
    (fetch.out / first.files[1].place).unlink()
    (fetch.out / "fetch.json").unlink()
    fetch(subtypes=["DF"])
    assert rows().keys() == {cohort.files[0].place, *before} - {first.files[1].place}


def test_a_manifest_that_a_spreadsheet_saved_loses_no_origin(fetch):
    fetch(subtypes=["MFS"])
    manifest = fetch.out / "manifest.csv"
    text = manifest.read_text()
    manifest.write_text(text, encoding="utf-8-sig")
    fetch(subtypes=["DF"])
    assert {*text.splitlines()} < {*manifest.read_text().splitlines()}
    for number in (1, 2):
        changed = manifest.read_text().replace(",", ";")
        manifest.write_text(changed)
        fetch.notes.clear()
        fetch(subtypes=["DF"])
        assert (fetch.out / f"manifest-changed-{number}.csv").read_text() == changed
        assert any(f"manifest-changed-{number}.csv now" in note for note in fetch.notes)
        assert len(manifest.read_text().splitlines()) == 2


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_folder_of_somebody_elses_files_is_refused(network, fetch, dry_run):
    (fetch.out / "slides").mkdir(parents=True)
    for name in ("cohort.csv", "manifest.csv"):
        (fetch.out / name).write_text("case,slide\na,a\n")
    with pytest.raises(
        FetchError, match=r"is not empty: cohort\.csv, manifest\.csv, slides\. Choose an"
    ):
        fetch(subtypes=["DF"], dry_run=dry_run)
    assert not network.requests
    assert not list((fetch.out / "slides").iterdir())
    assert len(list(fetch.out.iterdir())) == 3


def test_a_folder_of_hidden_files_is_empty(fetch):
    fetch.out.mkdir()
    (fetch.out / ".DS_Store").touch()
    assert fetch(subtypes=["DF"]).table


@pytest.mark.parametrize(
    ("first", "second", "note"),
    [
        (
            {"subtypes": ["DF"]},
            {"max_per_subtype": 1},
            r"subtypes=DF, now all; max_per_subtype=all, now 1",
        ),
        ({"max_per_subtype": 2}, {}, r"max_per_subtype=2, now all\)"),
    ],
)
def test_no_choice_is_all(fetch, first, second, note):
    fetch(**first)
    fetch(**second)
    assert re.search(note, fetch.notes[0])


def test_a_folder_whose_record_is_damaged_is_said(fetch):
    fetch(subtypes=["DF"])
    (fetch.out / "fetch.json").write_text("{")
    with pytest.raises(FetchError, match="Delete it: files that are there are not fetched again"):
        fetch(subtypes=["DF"])


def test_two_processes_do_not_fill_one_folder(fetch):
    fetch.out.mkdir()
    with (fetch.out / LOCK).open("a+") as other:
        assert lock(other)
        with pytest.raises(FetchError, match="is being filled by another process"):
            fetch(**SS)
    assert not fetch(**SS).failed


def test_the_manifest_says_where_each_file_came_from(network, fetch):
    cohort = fetch(subtypes=["DF"])
    header, row = (fetch.out / "manifest.csv").read_text().splitlines()
    assert header == "file,case,slide,id,md5,bytes,url,fetched"
    [file] = cohort.files
    cells = row.split(",")
    assert cells[:7] == [
        file.place, file.case, file.slide, file.id, file.md5, str(file.size), file.url,
    ]  # fmt: skip
    assert datetime.fromisoformat(cells[7]) <= datetime.now(UTC)
    assert file.url == f"{network.address}/data/{file.id}"


def test_megabytes_are_shown_as_they_arrive(network, fetch):
    network.files = [slide(f"TCGA-3B-A{n:03d}-01Z-00-DX1", 1_700_000) for n in (2, 4)]
    shown = []

    class Shown:
        def task(self, name, total, unit):
            shown.append((name, total, unit, []))
            return self

        def __enter__(self):
            return shown[-1][3].append

        def __exit__(self, *_):
            pass

    fetch(progress=Shown())
    [(name, total, unit, steps)] = shown
    assert (name, total, unit, sum(steps)) == ("fetched", 3, "MB", 3)


def test_an_interrupt_ends_the_work_at_once_and_is_continued(network, fetch, forked):
    network.files = [slide(f"TCGA-3B-A{n:03d}-01Z-00-DX1", 300_000) for n in range(2, 15, 2)]
    network.delay_s = 0.2
    process = forked.Process(
        target=_fetch_until_interrupted, args=(network.address, str(fetch.out))
    )
    process.start()
    while process.is_alive() and not any("/data" in path for _, path, _ in network.requests):
        time.sleep(0.01)
    started = time.monotonic()
    os.kill(process.pid, signal.SIGINT)
    process.join(10)
    assert process.exitcode == 130
    assert time.monotonic() - started < 5
    network.delay_s = 0.0
    cohort = fetch()
    assert sums(fetch.out) == promised(cohort)


def _fetch_until_interrupted(address, out):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        mil.fetch_gdc("TCGA-SARC", out, server=address, parallel=1)
    except KeyboardInterrupt:
        os._exit(130)


@pytest.mark.parametrize("seed", range(2))
def test_a_kill_at_any_moment_loses_nothing(network, fetch, forked, seed):
    """Killed again and again: what has its own name is whole, and what arrived is not fetched again."""
    network.files = [slide(f"TCGA-3B-A{n:03d}-01Z-00-DX1", 400_000) for n in (2, 4, 6, 8)]
    network.pace_s = 0.01
    rng = random.Random(seed)
    expected = {file["file_name"]: file["md5sum"] for file in network.files}
    kills = 0
    for _ in range(7):
        process = forked.Process(target=_fetch_slowly, args=(network.address, str(fetch.out)))
        process.start()
        process.join(rng.uniform(0.05, 0.35))
        killed = process.is_alive()
        process.kill()
        process.join()
        kills += killed
        there = sums(fetch.out) if (fetch.out / "slides").is_dir() else {}
        whole = {name: digest for name, digest in there.items() if not name.endswith(".part")}
        assert whole.items() <= expected.items()
        if not killed:
            break
    network.pace_s = 0.0
    cohort = fetch()
    assert sums(fetch.out) == expected == promised(cohort)
    assert kills
    # What was on its way when the process died, of at most two files each time, is lost.
    assert network.bytes_sent() <= cohort.n_bytes + kills * 2 * 400_000
    sent = network.bytes_sent()
    fetch()
    assert network.bytes_sent() == sent


def _fetch_slowly(address, out):
    original = hashlib.md5

    def slow(*arguments, **options):  # the moment between the last byte and the name
        time.sleep(0.02)
        return original(*arguments, **options)

    hashlib.md5 = slow
    mil.fetch_gdc("TCGA-SARC", out, server=address, parallel=2, wait_s=0.001)


def test_a_proxy_of_the_environment_is_used(network, fetch, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", network.address)
    cohort = fetch(server="http://gdc.invalid", **SS)
    assert sums(fetch.out) == promised(cohort)
    assert {path.partition("gdc.invalid")[0] for _, path, _ in network.requests} == {"http://"}


def test_two_files_of_one_place_are_refused():
    file = download.RemoteFile(url="u", place="slides/a.svs", size=1, md5="", version="1", id="1")
    with pytest.raises(FetchError, match=r"lists 2 files called a\.svs"):
        download.refuse_twins([file, file])


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_slide_that_is_listed_twice_is_one_and_of_two_that_differ_none(network, fetch, dry_run):
    first, second = (f for f in network.files if "A017-01Z-00-DX" in f["file_name"])
    network.files.append(dict(first))
    options = {"slides_per_case": 2, "dry_run": dry_run}
    assert len(fetch(subtypes=["DF"], **options).files) == 2
    network.files.append(second | {"md5sum": "0" * 32})
    cohort = fetch(subtypes=["DF"], **options)
    assert [file.id for file in cohort.files] == [first["file_id"]]
    assert cohort.left_out["slides whose entry is damaged or contradicts itself"] == 1
    assert any(f"{second['file_name']} (listed twice, and diff" in note for note in fetch.notes)


def test_what_was_found_prints_in_a_line(fetch):
    assert repr(fetch(subtypes=["DF", "SS"], dry_run=True)) == (
        "FetchedCohort(TCGA-SARC: cases DF 1, SS 3; 0.0 MB, not fetched)"
    )
