"""`mil view` serves until it is interrupted, checks itself, and says what it cannot do."""

import json
import shutil
import signal
import socket
import subprocess
import sys
from urllib.request import urlopen

import pytest

from tests.conftest import REPO, environment


def test_it_serves_until_interrupted_and_ends_cleanly(viewed):
    run, files = viewed
    folder = next(iter(files.values())).parent
    command = [
        sys.executable,
        "-u",
        "-m",
        "cli",
        "view",
        run.path,
        "--slides",
        folder,
        "--port",
        "0",
    ]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPO,
        env=environment(),
    ) as process:
        assert process.stdout.readline() == "6 slides, 0 with a file; 8 layers of scores.\n"
        address = process.stdout.readline().split()[0]
        with urlopen(address) as page:
            assert b"<canvas" in page.read()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "Ended.\n", "")


def test_check_fetches_from_itself_and_stops(mil, viewed):
    done = mil("view", viewed[0].path, "--check")
    assert "scores of 6 tiles" in done.stdout


def test_check_says_why_the_server_has_no_answer(mil, viewed, tmp_path):
    run = shutil.copytree(viewed[0].path, tmp_path / "run")
    info = json.loads((run / "run.json").read_text())
    info["settings"]["store"] = str(tmp_path / "gone")
    (run / "run.json").write_text(json.dumps(info))
    done = mil("view", run, "--check", check=False)
    assert done.returncode == 1
    assert str(tmp_path / "gone") in done.stderr
    assert "HTTP Error" not in done.stderr


def test_an_occupied_port_is_refused(mil, viewed):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = mil("view", viewed[0].path, "--port", port, check=False)
    assert done.returncode == 2
    assert f"--port {port}: Address already in use. Choose another, or 0." in done.stderr


@pytest.mark.parametrize("port", ["-1", "65536"])
def test_a_port_there_cannot_be_is_refused(mil, viewed, port):
    assert "1 to 65535" in mil("view", viewed[0].path, "--port", port, check=False).stderr


def test_a_folder_without_slides_is_refused(mil, viewed, tmp_path):
    done = mil("view", viewed[0].path, "--slides", tmp_path, check=False)
    assert done.returncode == 2
    assert "holds no slides" in done.stderr
