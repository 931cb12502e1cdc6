"""The viewer answers its own page with what the run holds, and nobody else with anything."""

import io
import json
import shutil
import socket
import threading
import time
from dataclasses import replace

import numpy as np
import openslide
import pytest
from openslide.deepzoom import DeepZoomGenerator

from features.bags.bag import read_bag, write_bag
from features.errors import SlideError
from features.slides.deepzoom import JPEG_QUALITY
from mil.data.splits import read_folds
from mil.errors import LeakageError, RunError
from mil.explanation.attention import attention_scores
from mil.explanation.evidence import evidence_scores
from mil.explanation.faithfulness import judge, random_curves
from mil.explanation.heatmap import describe_unit
from mil.explanation.single_tile import single_tile_scores
from mil.explanation.target import explanation_target
from mil.heads.registry import head_class
from mil.learning.fitted import load_model
from mil.runs.run import Run
from mil.settings import FitSettings
from mil.view.gallery import Gallery
from mil.view.layers import Layer, list_layers
from mil.view.server import Viewer
from mil.view.turns import Turns
from tests.features.making import noise, write_tiff
from tests.mil.view.conftest import NASTY
from tests.mil.view.requests import fetch

SLIDE = f"{NASTY}-s1"


def got(server, path):
    status, _, body = fetch(server, path)
    assert status == 200, body
    return json.loads(body)


def number_of(gallery, slide):
    return gallery.slides.index(slide)


def bag_path(run, slide):
    return run.settings.store / f"{slide}.h5"


# --- who is answered -------------------------------------------------------------------------------


def test_it_listens_on_this_machine_only(server):
    assert server.socket.getsockname()[0] == "127.0.0.1"
    assert server.address.startswith("http://127.0.0.1:")


def test_every_viewer_has_a_token_of_its_own(gallery):
    with Viewer(gallery) as first, Viewer(gallery) as second:
        assert first.token != second.token
        assert len(first.token) >= 32


@pytest.mark.parametrize(
    "change", [lambda t: "", lambda t: t[:-1], lambda t: t + "A", lambda t: t[::-1]]
)
@pytest.mark.parametrize("path", ["", "contents.json", "slides/0/slide.json"])
def test_a_wrong_token_is_refused_before_anything_is_looked_at(server, change, path):
    status, _, body = fetch(server, path, token=change(server.token))
    assert (status, body) == (403, b"Open the address that the viewer printed.")


@pytest.mark.parametrize(
    "hosts",
    [
        lambda port: [],
        lambda port: ["evil.example"],
        lambda port: [f"evil.example:{port}"],
        lambda port: ["127.0.0.1"],
        lambda port: [f"127.0.0.1:{port + 1}"],
        lambda port: [f"127.0.0.1.evil.example:{port}"],
        lambda port: [f"127.0.0.1:{port}", "evil.example"],
    ],
)
def test_another_host_is_refused(server, hosts):
    """A name that its owner makes point here must not reach the slides (DNS rebinding)."""
    status, _, body = fetch(server, "contents.json", host=hosts(server.server_port))
    assert (status, body) == (421, b"This server answers to 127.0.0.1 only.")


def test_both_names_of_this_machine_are_answered(server):
    for name in ("127.0.0.1", "localhost"):
        assert fetch(server, "", host=[f"{name}:{server.server_port}"])[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE"])
def test_only_get_is_answered(server, method):
    assert fetch(server, "contents.json", method=method)[0] == 501


@pytest.mark.parametrize(
    "path",
    [
        "../run.json", "run.json", "%2e%2e/run.json", "..%2frun.json", "slides/../../run.json",
        "slides/0/../../../etc/passwd", "//etc/passwd", "etc/passwd", "slides", "slides/0", "slides/0/",
        "slides/-1/slide.json", "slides/00000000/slide.json", "slides/0/slide.json?x", "contents.json/",
        "contents_json", "slides/0/tiles/5/0_0.png", "slides/0/tiles/5/0_-1.jpg", "slides/\xb2/slide.json",
        "slides/0/overview.jpg%00", "contents.json#x", "slides/0x0/slide.json", "slides/a0/slide.json",
    ],
)  # fmt: skip
def test_what_is_not_in_the_table_of_routes_is_not_there(server, path):
    assert fetch(server, path)[0] == 404


@pytest.mark.parametrize(
    "path",
    ["slides/0/verdicts/99.json",
     "slides/99/slide.json", "slides/99/overview.jpg", "slides/0/scores/99.json", "slides/99/scores/0.json",
     "slides/99/tiles/3/0_0.jpg"],
)  # fmt: skip
def test_an_unknown_number_gives_404(server, path):
    assert fetch(server, path)[0] == 404


def test_garbage_on_the_line_does_not_end_the_server(server):
    for line in (
        b"\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9\r\n\r\n",
        b"GET " + b"/" * 70000,
    ):
        with socket.create_connection(("127.0.0.1", server.server_port)) as client:
            client.sendall(line)
    assert fetch(server, "")[0] == 200


def test_every_answer_forbids_foreign_scripts_and_embedding(server):
    for path in ("", "contents.json", "nothing"):
        _, headers, _ = fetch(server, path)
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe-inline" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "Access-Control-Allow-Origin" not in headers
        assert "Python" not in headers["Server"]


def test_the_page_asks_nothing_of_the_network_and_writes_no_markup(server):
    page = fetch(server, "")[2].decode()
    for word in ("http:", "https:", "innerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert word not in page


# --- what is answered ------------------------------------------------------------------------------


def test_tiles_are_those_of_openslides_deepzoom_generator(server, gallery, viewed):
    path = viewed[1][SLIDE]
    number = number_of(gallery, SLIDE)
    zoom = got(server, f"slides/{number}/slide.json")["zoom"]
    with openslide.OpenSlide(path) as slide:
        theirs = DeepZoomGenerator(slide, tile_size=zoom["tile"], overlap=zoom["overlap"])
        assert zoom["levels"] == theirs.level_count
        for level in range(zoom["coarsest"], theirs.level_count):
            columns, rows = theirs.level_tiles[level]
            for column, row in {(0, 0), (columns - 1, rows - 1), (columns - 1, 0)}:
                place = f"slides/{number}/tiles/{level}/{column}_{row}.jpg"
                status, headers, body = fetch(server, place)
                assert status == 200
                assert headers["Content-Type"] == "image/jpeg"
                expected = io.BytesIO()
                theirs.get_tile(level, (column, row)).save(expected, "JPEG", quality=JPEG_QUALITY)
                assert body == expected.getvalue()
            assert fetch(server, f"slides/{number}/tiles/{level}/{columns}_0.jpg")[0] == 409


def test_tiles_that_a_browser_no_longer_waits_for_are_not_read(server, gallery, monkeypatch):
    number, read, release = number_of(gallery, SLIDE), [], threading.Event()

    def tile(_slide, level, column, row):
        read.append(row)
        release.wait(10)
        return b"picture"

    monkeypatch.setattr(gallery, "tile", tile)
    monkeypatch.setattr(server, "turns", Turns(2))
    connections = {}
    for row in range(60):
        connections[row] = socket.create_connection(("127.0.0.1", server.server_port))
        path = f"/{server.token}/slides/{number}/tiles/9/0_{row}.jpg"
        connections[row].sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\n\r\n".encode()
        )
    wait_until(lambda: len(server.turns._waiting) == 58)
    served = set(read)
    for row in set(connections) - served:
        connections[row].close()
    answers = []
    latest = threading.Thread(
        target=lambda: answers.append(fetch(server, f"slides/{number}/tiles/9/0_99.jpg")[0])
    )
    latest.start()
    wait_until(lambda: len(server.turns._waiting) == 59)
    release.set()
    latest.join()
    wait_until(lambda: not server.turns._waiting)
    assert answers == [200]
    assert len(read) == 3
    assert read[2] == 99
    for row in served:
        connections[row].close()


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_of_those_that_wait_the_latest_has_its_turn_first():
    turns, order = Turns(1), []

    def work(number):
        with turns.take():
            order.append(number)

    with turns.take():
        threads = []
        for number in range(4):
            threads.append(threading.Thread(target=work, args=(number,)))
            threads[-1].start()
            wait_until(lambda: len(turns._waiting) == len(threads))
    for thread in threads:
        thread.join()
    assert order == [3, 2, 1, 0]
    with turns.take():
        assert turns._free == 0
    assert turns._free == 1


def test_scores_are_of_the_model_that_has_not_seen_the_case(server, gallery, viewed):
    run = viewed[0]
    folds = read_folds(run.path / "folds.json")
    for number, slide in enumerate(gallery.slides):
        [fold] = [fold for fold in folds if run.cases[slide] in fold.test]
        for index, layer in enumerate(gallery.layers):
            fitted = load_model(run.model_path(layer.model, fold))
            bag = read_bag(bag_path(run, slide))
            expected = {
                "attention": lambda target: attention_scores(fitted, bag),  # noqa: B023
                "evidence": evidence_scores,
                "single-tile": single_tile_scores,
            }[layer.method](explanation_target(fitted, bag))
            scores = got(server, f"slides/{number}/scores/{index}.json")
            assert np.allclose(scores["values"], expected.values, rtol=1e-3, atol=1e-4)
            assert scores["unit"] == describe_unit(expected)
            assert scores["relation"] == f"model of fold {fold.index}, not trained on this case"
    methods = ("evidence", "attention", "single-tile")
    assert [(layer.model, layer.method) for layer in gallery.layers] == [
        *((model, method) for model in ("abmil", "gated-abmil") for method in methods),
        *(("mean", method) for method in methods if method != "attention"),
    ]


def test_a_layer_is_shown_with_how_true_it_is(server, gallery, viewed, monkeypatch):
    run = viewed[0]
    [fold] = [f for f in read_folds(run.path / "folds.json") if f.repeat == 0 and NASTY in f.test]
    number = gallery.slides.index(SLIDE)
    fitted = load_model(run.model_path("abmil", fold))
    target = explanation_target(fitted, read_bag(bag_path(run, SLIDE)))
    faithfulness = judge(target, evidence_scores(target), random_curves(target))
    index = gallery.layers.index(Layer("abmil", "evidence"))
    verdict = got(server, f"slides/{number}/verdicts/{index}.json")
    assert verdict == {
        "better": faithfulness.better_than_random,
        "says": f"{faithfulness.verdict}.",
    }
    monkeypatch.setattr(head_class("gated-abmil"), "adds_up", False)  # too slow to wait for
    index = gallery.layers.index(Layer("gated-abmil", "attention"))
    assert "takes long to measure" in got(server, f"slides/{number}/verdicts/{index}.json")["says"]


def test_a_layer_of_a_model_that_may_have_guessed_says_so(server, gallery, viewed):
    path = viewed[0].path / "metrics.json"
    result = {"correct": 3, "n": 6, "p_chance": 0.6, "p_majority": 0.6}
    path.write_text(json.dumps({"models": [{"model": "abmil", **result}]}))
    try:
        warnings = {
            layer.model: got(server, f"slides/0/scores/{index}.json")["warnings"]
            for index, layer in enumerate(gallery.layers)
        }
    finally:
        path.unlink()
    assert warnings["gated-abmil"] == warnings["mean"] == []
    assert warnings["abmil"][0].startswith("These cases do not show that abmil beats guessing")


def test_methods_that_do_not_suit_a_head_or_its_score_have_no_layer():
    linear, discrete = (
        [layer.method for layer in list_layers(["abmil"], FitSettings(task="survival", loss=loss))]
        for loss in ("cox", "discrete")
    )
    assert linear == ["evidence", "attention", "single-tile"]
    assert discrete == ["attention", "single-tile"]
    assert [layer.method for layer in list_layers(["transmil"], FitSettings())] == [
        "attention",
        "single-tile",
    ]


def test_contents_hold_the_predictions_of_every_case(server, viewed):
    contents = got(server, "contents.json")
    table = (viewed[0].path / "predictions.csv").read_text().splitlines()
    assert len(contents["cases"]) == 6
    for case in contents["cases"]:
        [line] = [x for x in table if x.startswith('"abmil"') and f'"{case["case"]}"' in x]
        p = [float(value) for value in line.split(",")[-2:]]
        prediction = case["predictions"]["abmil"]
        assert np.allclose(prediction["p"], p, atol=1e-4)
        assert prediction["right"] == (contents["classes"][int(np.argmax(p))] == case["label"])


def test_a_slide_without_its_file_is_shown_by_its_bag(server, gallery):
    number = next(i for i, slide in enumerate(gallery.slides) if slide != SLIDE)
    slide = got(server, f"slides/{number}/slide.json")
    assert slide["zoom"] is None
    assert len(slide["coords"]) == 6
    status, _, body = fetch(server, f"slides/{number}/tiles/9/0_0.jpg")
    assert status == 409
    assert b"Set slides to the folder that holds it" in body


def elsewhere(viewed, tmp_path):
    """The run with a store and models of its own, to be changed."""
    run, files = viewed
    shutil.copytree(run.path, tmp_path / "run")
    for slide in run.cases:
        write_bag(tmp_path / "store" / f"{slide}.h5", read_bag(bag_path(run, slide)))
    settings = dict(run.settings.stored) | {"store": str(tmp_path / "store")}
    return Run(tmp_path / "run", dict(run.info) | {"settings": settings}), files


def test_the_file_of_another_slide_is_refused(viewed, tmp_path):
    run, _ = viewed
    small = write_tiff(tmp_path / "small.tiff", [noise(300, 400)])
    gallery = Gallery(run, {SLIDE: small})
    with pytest.raises(SlideError, match=r"400 x 300 pixels.*2700 x 1100"):
        gallery.slide(number_of(gallery, SLIDE))


def test_a_bag_that_changed_since_the_run_is_not_scored(viewed, tmp_path):
    run, files = elsewhere(viewed, tmp_path)
    path = bag_path(run, SLIDE)
    bag = read_bag(path)
    write_bag(path, replace(bag, features=np.asarray(bag.features) + 1))
    gallery = Gallery(run, files)
    with pytest.raises(RunError, match="has changed since"):
        gallery.scores(number_of(gallery, SLIDE), 0)


def test_a_model_that_has_seen_the_case_is_not_shown(viewed, tmp_path):
    run, files = elsewhere(viewed, tmp_path)
    first, second = (
        run.model_path("abmil", fold) for fold in read_folds(run.path / "folds.json")[:2]
    )
    shutil.copy(first, second)
    with pytest.raises(RunError, match="not as the run wrote it"):
        [Gallery(run, files).scores(number, 0) for number in range(6)]
    run.info["results"].clear()  # a run that has kept no fingerprints
    gallery = Gallery(run, files)
    refused = 0
    for number in range(len(gallery.slides)):
        try:
            gallery.scores(number, 0)
        except LeakageError:
            refused += 1
    assert refused == 2  # the cases that the second fold tests


def test_an_unfinished_run_is_refused(viewed):
    run, files = viewed
    for change in ({"complete": False}, {"command": "finetune"}):
        with pytest.raises(RunError, match="not a finished cross-validation or training"):
            Gallery(Run(run.path, dict(run.info) | change), files)
