"""Who has seen whom: a tuned backbone is not tested on its own cases, and tuning per fold is honest."""

import csv
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from lessons import RECIPE, alone, images, lesson, small_inputs, tune
from PIL import Image
from safetensors.torch import load_file, save_file

from features.bags.bag import read_bag
from features.extraction.extract import extract
from features.extraction.identity import slide_fingerprints
from features.extraction.normalisation import reference_to_json, resolve_stain_reference
from features.extraction.run import extract_jobs, seen_notes
from features.progress import Silent
from features.summary import Summary
from features.tiles.stain import load_reference, save_reference
from mil.audit.seen import add_seen
from mil.data.case import Row
from mil.data.cohort import assemble
from mil.data.splits import Fold
from mil.errors import CohortError, LeakageError
from mil.evaluation.classification.evaluate import evaluate
from mil.evaluation.predictions import read_predictions
from mil.finetune import per_fold
from mil.finetune.cross_validation import PerFoldPipeline
from mil.finetune.per_fold import Tuning, check_start, cross_validate_per_fold
from mil.finetune.settings import FinetuneSettings
from mil.learning.crossval import check_seen, cross_validate, fit_anew
from mil.runs.cases import cohort_as_tested
from mil.runs.run import open_run
from mil.settings import FitSettings
from mil.tasks.diagnosis import Diagnosis

pytestmark = pytest.mark.slow

CASES = {f"case-{i}": "ab"[i % 2] for i in range(8)}
FOLDS = tuple(
    Fold(
        repeat=0,
        index=i,
        test=tuple(list(CASES)[4 * i : 4 * i + 4]),
        train=tuple(list(CASES)[4 - 4 * i : 8 - 4 * i]),
    )
    for i in range(2)
)
LONG = FinetuneSettings(
    epochs=25,
    tiles_per_slide=4,
    batch_tiles=8,
    learning_rate=3e-3,
    layer_decay=1.0,
    dropout=0.0,
    jitter=0.0,
)
FIT = FitSettings()


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """Slides whose pixels know nothing of the label: each case has a colour of its own."""
    folder = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(3)
    slides = [
        lesson(
            folder / "tiles",
            case,
            label,
            colour=tuple(rng.integers(60, 200, 3)),
            n_tiles=8,
            spread=30,
        )
        for case, label in CASES.items()
    ]
    rows = [
        Row(line=i, case=slide.job.case, slide=slide.job.slide, label=slide.label)
        for i, slide in enumerate(slides, start=2)
    ]
    tune(slides, folder / "tuned", LONG)
    return folder, slides, rows


def bags(folder, slides, weights, backbone=RECIPE.backbone):
    recipe = replace(RECIPE, weights=str(weights), backbone=backbone)
    extract([slide.job for slide in slides], recipe, folder, device="cpu", workers=1)
    return folder


def tuning_of(folder, slides, rows, **changes):
    values = {
        "rows": rows, "slides": slides, "recipe": RECIPE, "settings": replace(LONG, epochs=2),
        "task": Diagnosis(), "store": lambda fold: folder / f"r{fold.repeat}-f{fold.index}" / "store",
        "ranks": alone(),
    }  # fmt: skip
    return Tuning(**values | changes)


def test_a_backbone_is_refused_on_its_own_training_cases(noise):
    folder, slides, rows = noise
    cohort = assemble(
        rows, bags(folder / "store", slides, folder / "tuned" / "weights.safetensors")
    )
    with pytest.raises(LeakageError, match=r"trained on 8 cases that would be tested, e.g. case-0"):
        cross_validate(cohort, FOLDS, ["tile-vote"], FIT, seed=0)


def renamed(slides):
    """The same files under other names of slides and cases."""
    return [
        replace(slide, job=replace(slide.job, slide=f"scan {i}", case=f"pt-{i}"))
        for i, slide in enumerate(slides, start=50)
    ]


def test_slides_that_weights_have_seen_are_known_by_their_content(noise, tmp_path):
    """Renamed cases and slides are found by extraction, cross-validation and a start of fine-tuning."""
    folder, slides, _ = noise
    weights = str(folder / "tuned" / "weights.safetensors")
    others = renamed(slides)
    notes = seen_notes(weights, [slide.job for slide in others])
    assert notes[0].startswith("The weights were trained on 8 of the 8 slides: scan 50")
    assert seen_notes("random", [slide.job for slide in others]) == []
    rows = [
        Row(line=i, case=slide.job.case, slide=slide.job.slide, label=slide.label)
        for i, slide in enumerate(others, start=2)
    ]
    cohort = assemble(rows, bags(tmp_path / "store", others, weights))
    names = tuple(cohort.names)
    fold = Fold(repeat=0, index=0, train=names[2:], test=names[:2])
    with pytest.raises(LeakageError, match=r"trained on 2 cases .* e\.g\. pt-50, pt-51"):
        check_seen(cohort, [fold])
    tuning = tuning_of(tmp_path, others, rows, recipe=replace(RECIPE, weights=weights))
    with pytest.raises(LeakageError, match="have seen pt-50"):
        check_start(tuning, [fold])


def saved_again(folder, slides):
    """The same pixels in files of another format, of other slides and cases."""
    folder.mkdir()
    copies = []
    for number, slide in enumerate(slides):
        files = tuple(
            folder / f"copy{number}-{f.stem.split('-', 2)[2]}.bmp" for f in slide.job.files
        )
        for file, copy in zip(slide.job.files, files, strict=True):
            Image.open(file).save(copy)
        job = replace(slide.job, slide=f"copy{number}", case=f"other-{number}", files=files)
        copies.append(replace(slide, job=job))
    return copies


def test_slides_that_weights_have_seen_are_known_by_their_pixels(noise, tmp_path):
    """Files that were saved again without loss are refused wherever the first ones are."""
    folder, slides, _ = noise
    weights = str(folder / "tuned" / "weights.safetensors")
    copies = saved_again(tmp_path / "copies", slides)
    jobs = [copy.job for copy in copies]
    notes = []
    extract_jobs(
        jobs, replace(RECIPE, weights=weights), tmp_path / "store", device="cpu", workers=1,
        notify=notes.append,
    )  # fmt: skip
    [note] = [note for note in notes if "saved in other files" in note]
    assert note.startswith(
        "The weights were trained on 8 of the 8 slides, saved in other files: copy0"
    )
    rows = [
        Row(line=i, case=copy.job.case, slide=copy.job.slide, label=copy.label)
        for i, copy in enumerate(copies, start=2)
    ]
    cohort = assemble(rows, tmp_path / "store")
    names = tuple(cohort.names)
    fold = Fold(repeat=0, index=0, train=names[2:], test=names[:2])
    with pytest.raises(LeakageError, match=r"trained on 2 cases .* e\.g\. other-0, other-1"):
        check_seen(cohort, [fold])
    with pytest.raises(LeakageError, match="have seen other-0"):
        check_start(
            tuning_of(tmp_path, copies, rows, recipe=replace(RECIPE, weights=weights)), [fold]
        )
    summary = Summary()
    add_seen(summary, cohort)
    assert summary.facts["backbone"] == (
        "has seen 8 tested cases (compared by name, file and pixels; a slide compressed again with loss is "
        "not recognised)"
    )


def test_a_reference_stain_is_known_by_the_pixels_of_its_slide(noise, tmp_path):
    _, slides, _ = noise
    recipe = replace(RECIPE, stain="macenko", stain_reference=("case-1",))
    save_reference(
        tmp_path / "stain.json",
        resolve_stain_reference(recipe, [slide.job for slide in slides]),
    )
    copies = saved_again(tmp_path / "copies", slides)
    seen = next(c.job.case for c, s in zip(copies, slides, strict=True) if s.job.slide == "case-1")
    recipe = replace(recipe, stain_reference=(str(tmp_path / "stain.json"),))
    fold = Fold(repeat=0, index=0, train=(), test=(seen,))
    with pytest.raises(LeakageError, match=f"have seen {seen},"):
        check_start(tuning_of(tmp_path, copies, [], recipe=recipe), [fold])


def test_a_reference_stain_is_known_by_the_content_of_its_slide(noise, tmp_path):
    _, slides, _ = noise
    recipe = replace(RECIPE, stain="macenko", stain_reference=("case-1",))
    reference = resolve_stain_reference(recipe, [slide.job for slide in slides])
    save_reference(tmp_path / "stain.json", reference)
    assert load_reference(tmp_path / "stain.json") == reference
    assert reference_to_json(reference)["sources"] == list(reference.sources)
    others = renamed(slides)
    seen = others[[slide.job.slide for slide in slides].index("case-1")].job
    assert reference.sources == tuple(sorted(slide_fingerprints(seen)))
    rows = [
        Row(line=i, case=slide.job.case, slide=slide.job.slide, label=slide.label)
        for i, slide in enumerate(others, start=2)
    ]
    recipe = replace(recipe, stain_reference=(str(tmp_path / "stain.json"),))
    fold = Fold(repeat=0, index=0, train=(), test=(seen.case,))
    with pytest.raises(LeakageError, match=f"have seen {seen.case},"):
        check_start(tuning_of(tmp_path, others, rows, recipe=recipe), [fold])


def test_renamed_cases_are_relabelled_and_nothing_is_embedded(noise, tmp_path):
    _, slides, _ = noise
    first = extract(
        [slide.job for slide in slides], RECIPE, tmp_path / "s", device="cpu", workers=1
    )
    assert {outcome.status for outcome in first} == {"done"}
    before = {
        s.job.slide: read_bag(tmp_path / "s" / f"{s.job.slide}.h5").data_sha256 for s in slides
    }
    jobs = [replace(slide.job, case=f"pt-{slide.job.slide}") for slide in slides]
    again = extract(jobs, RECIPE, tmp_path / "s", device="cpu", workers=1)
    assert {outcome.status for outcome in again} == {"skipped"}
    for slide, sha256 in before.items():
        bag = read_bag(tmp_path / "s" / f"{slide}.h5")
        assert (bag.case, bag.data_sha256) == (f"pt-{slide}", sha256)


def test_what_the_guard_refuses_would_have_looked_like_skill(noise, tmp_path):
    """Without its card the same backbone makes noise look diagnosable; per fold it does not."""
    folder, slides, rows = noise
    save_file(
        load_file(folder / "tuned" / "weights.safetensors"), tmp_path / "nameless.safetensors"
    )
    nameless = bags(
        tmp_path / "store", slides, tmp_path / "nameless.safetensors", "test_resnet.r160_in1k"
    )
    cohort = assemble(rows, nameless)
    leaked = evaluate(cross_validate(cohort, FOLDS, ["tile-vote"], FIT, seed=0)).models[0]
    assert leaked.correct == 8
    tuning = tuning_of(tmp_path / "folds", slides, rows, settings=LONG)
    honest = cross_validate_per_fold(
        tuning, FOLDS, ["tile-vote"], FIT, seed=0, fitter=fit_anew, progress=Silent()
    )
    assert evaluate(honest).models[0].correct <= 6


def test_backbones_of_folds_are_trained_on_their_training_cases_only(noise, tmp_path):
    _, slides, rows = noise
    tuning = tuning_of(tmp_path, slides, rows)
    models = ["tile-vote", "majority"]
    predictions = cross_validate_per_fold(
        tuning, FOLDS, models, FIT, seed=0, fitter=fit_anew, progress=Silent()
    )
    assert predictions.models == tuple(models)
    assert len(predictions.table) == 2 * len(CASES)
    tested = cohort_as_tested(rows, FOLDS, tuning.store, Diagnosis())
    assert [case.name for case in tested.cases] == sorted(CASES)
    recipes = set()
    for fold in FOLDS:
        cohort = assemble(rows, tuning.store(fold))
        recipes.add(cohort.recipe_sha256)
        for case in cohort.cases:
            assert case.bags[0].trained_on == tuple(sorted(fold.train))
        check_seen(cohort, [fold])
        [other] = [candidate for candidate in FOLDS if candidate is not fold]
        with pytest.raises(LeakageError):
            check_seen(cohort, [other])
        for name in fold.test:
            [case] = tested.named([name])
            [expected] = cohort.named([name])
            assert case.bags[0].data_sha256 == expected.bags[0].data_sha256
    assert len(recipes) == 2
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for number, row in enumerate(rows):
        name = f"{row.slide}.h5"
        (mixed / name).symlink_to(tuning.store(FOLDS[number % 2]) / name)
    with pytest.raises(CohortError, match=r"made differently \(.*weights_sha256"):
        assemble(rows, mixed)


def test_an_interrupted_run_goes_on_and_comes_to_the_same(noise, tmp_path, monkeypatch):
    _, slides, rows = noise
    calls = []

    class Stop(Exception):
        pass

    def run(folder):
        tuning = tuning_of(folder, slides, rows)
        return cross_validate_per_fold(
            tuning, FOLDS, ["tile-vote"], FIT, seed=0, fitter=fit_anew, progress=Silent()
        ).table

    whole = run(tmp_path / "whole")
    real = per_fold.extract

    def cut(*args, **kwargs):
        calls.append(args[2])
        if len(calls) == 2:
            raise Stop
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(per_fold, "extract", cut)
        with pytest.raises(Stop):
            run(tmp_path / "cut")
    paths = sorted((tmp_path / "cut").rglob("*.h5")) + sorted((tmp_path / "cut").rglob("weights*"))
    times = [path.stat().st_mtime_ns for path in paths]
    assert len(paths) == len(CASES) + 2
    assert run(tmp_path / "cut").equals(whole)
    assert [path.stat().st_mtime_ns for path in paths] == times


def test_a_start_that_has_seen_a_test_case_is_refused_before_any_work(noise, tmp_path):
    folder, slides, rows = noise
    seen = replace(RECIPE, weights=str(folder / "tuned" / "weights.safetensors"))
    stained = replace(RECIPE, stain="macenko", stain_reference=("case-1",))
    for recipe in (seen, stained):
        tuning = tuning_of(tmp_path, slides, rows, recipe=recipe)
        with pytest.raises(LeakageError, match="have seen case-"):
            cross_validate_per_fold(
                tuning, FOLDS, ["majority"], FIT, seed=0, fitter=fit_anew, progress=Silent()
            )
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def study(tmp_path_factory, mil):
    """A user's folder: a table, tile images, and a backbone fine-tuned on all of it."""
    folder = tmp_path_factory.mktemp("study")
    colours = {"a": (90, 90, 200), "b": (200, 90, 90)}
    for case, label in CASES.items():
        images(folder / "tiles", case, colours[label], n_tiles=2)
    with (folder / "cohort.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("case", "slide", "label"), *((c, c, k) for c, k in CASES.items())]
        )
    (folder / "tuning.toml").write_text(
        'slides = "tiles"\nslide-mpp = 0.5\nmpp = 0.5\ntile = 32\nbackbone = "test_resnet"\n'
        'weights = "random"\nprecision = "fp32"\nepochs = 2\ntiles-per-slide = 2\nbatch-tiles = 8\n'
    )
    mil("finetune", "cohort.csv", "--config", "tuning.toml", "--out", "tuned", cwd=folder)
    return folder


def test_the_command_refuses_a_tuned_backbone_and_tunes_per_fold(study, mil):
    tuned = "tuned/weights.safetensors"
    shared = ["--slides", "tiles", "--slide-mpp", "0.5", "--mpp", "0.5", "--tile", "32"]
    options = [*shared, "--backbone", "test_resnet", "--weights", tuned]
    mil("extract", "cohort.csv", *options, "--out", "store", cwd=study)
    refused = mil(
        "crossval", "cohort.csv", "store", "--folds", "2", "--out", "no", cwd=study, check=False
    )
    assert refused.returncode == 1
    assert "trained on 8 cases that would be tested, e.g. case-0, case-1, case-2" in refused.stderr
    per_fold_run = [
        "crossval", "cohort.csv", "--finetune", "per-fold", "--finetune-config", "tuned/run.json",
        "--models", "tile-vote,abmil", "--epochs", "5", "--seeds", "1", "--folds", "2", "--out", "run",
    ]  # fmt: skip
    mil(*per_fold_run, cwd=study)
    run = json.loads((study / "run" / "run.json").read_text())
    assert run["tuning"]["epochs"] == 2
    assert run["settings"]["epochs"] == 5
    assert len(run["bags"]) == len(CASES)
    mil("crossval", "--config", "run/run.json", "--out", "again", cwd=study)
    first, again = (study / name / "predictions.csv" for name in ("run", "again"))
    assert first.read_bytes() == again.read_bytes()
    mil("report", "run", cwd=study)
    assert (study / "run" / "report.html").stat().st_size > 10_000
    mil("permute", "run", "--times", "2", "--out", "permuted", cwd=study)
    with (study / "permuted" / "permutation.csv").open(newline="") as file:
        assert [row["model"] for row in csv.DictReader(file)] == 2 * ["tile-vote", "abmil"]
    assert not list((study / "permuted" / "shuffles").iterdir())
    # Shuffles are of the run's own settings, whatever the file says by now.
    (study / "tuned" / "run.json").write_text(
        (study / "tuned" / "run.json").read_text().replace('"epochs": 2', '"epochs": 3')
    )
    with pytest.MonkeyPatch.context() as patch:
        small_inputs(patch, 160)  # as the command has it
        check_pipeline_repeats_the_run(study / "run", study / "true labels")


def check_pipeline_repeats_the_run(path, folder):
    """On the true outcomes, the pipeline of the permutation test is the run itself."""
    run = open_run(path)
    again = PerFoldPipeline(run, folder, Silent())(run.cohort(), run.folds, 0)
    pd.testing.assert_frame_equal(
        again.table, read_predictions(path / "predictions.csv").table, check_exact=True
    )


def test_predictions_say_which_cases_the_backbone_has_seen(study, mil):
    """A head trained on new cases knows through its bags whom the backbone has seen."""
    for case in ("new-a", "new-b"):
        images(study / "more", case, (90, 90, 200), n_tiles=4)
    (study / "more.csv").write_text("case,slide,label\nnew-a,new-a,a\nnew-b,new-b,b\n")
    options = ["--slide-mpp", "0.5", "--mpp", "0.5", "--tile", "32", "--backbone", "test_resnet",
               "--weights", "tuned/weights.safetensors"]  # fmt: skip
    mil("extract", "more.csv", "--slides", "more", *options, "--out", "more-store", cwd=study)
    mil("extract", "tiles", *options, "--out", "old-store", cwd=study)
    mil(
        "train",
        "more.csv",
        "more-store",
        "--model",
        "mean",
        "--epochs",
        "1",
        "--out",
        "fit",
        cwd=study,
    )
    mil(
        "predict",
        "fit",
        "old-store/case-0.h5",
        "--cohort",
        "cohort.csv",
        "--out",
        "p.csv",
        cwd=study,
    )
    with (study / "p.csv").open(newline="") as file:
        assert {row["trained_on_it"] for row in csv.DictReader(file)} == {"yes"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["crossval", "cohort.csv", "--out", "x"], "STORE is missing"),
        (["crossval", "cohort.csv", "--finetune", "per-fold", "--out", "x"], "go together"),
        (["crossval", "cohort.csv", "s", "--finetune", "per-fold", "--finetune-config", "tuning.toml",
          "--out", "x"], "leave out STORE"),
        (["crossval", "cohort.csv", "--finetune", "per-fold", "--finetune-config", "tuning.toml",
          "--allow-missing", "--out", "x"], "Leave out --allow-missing"),
        (["crossval", "cohort.csv", "--finetune", "per-fold", "--finetune-config", "tuning.toml",
          "--allow-duplicates", "--out", "x"], "Leave out --allow-duplicates"),
        (["crossval", "cohort.csv", "--finetune", "per-fold", "--finetune-config", "tuning.toml",
          "--combine", "mean", "--out", "x"], "--combine mean does not work"),
        (["crossval", "cohort.csv", "s", "--finetune", "once", "--out", "x"],
         "--finetune is off or per-fold"),
        (["finetune", "tiles", "--slide-mpp", "0.5", "--out", "x"], "give a table"),
        (["finetune", "cohort.csv", "--config", "tuning.toml", "--mpp", "0.5,1", "--out", "x"],
         "Set --mpp to one"),
        (["finetune", "cohort.csv", "--config", "tuning.toml", "--epochs", "0", "--out", "x"],
         "epochs must be"),
        (["finetune", "cohort.csv", "--config", "tuning.toml", "--augment", "off,zoom", "--out", "x"],
         "--augment is off and zoom at once"),
        (["finetune", "cohort.csv", "--config", "tuning.toml", "--backbone", "resnet18-hidden", "--out", "x"],
         "has no hidden layers"),
    ],
)  # fmt: skip
def test_wrong_use_is_one_line(study, mil, arguments, words):
    done = mil(*arguments, cwd=study, check=False)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (study / "x").exists()


def test_patience_without_inner_cases_leaves_no_run_behind(study, mil):
    (study / "patient.toml").write_text((study / "tuning.toml").read_text() + "patience = 2\n")
    for command in (
        ("finetune", "cohort.csv", "--config", "patient.toml"),
        ("crossval", "cohort.csv", "--finetune", "per-fold", "--finetune-config", "patient.toml",
         "--folds", "2"),
    ):  # fmt: skip
        done = mil(*command, "--out", "x", cwd=study, check=False)
        assert done.returncode == 1
        assert "cases are too few to set some aside automatically" in done.stderr
        assert not (study / "x").exists()


def test_slides_without_a_label_are_named(study, mil):
    (study / "half.csv").write_text("case,slide,label\ncase-0,case-0,a\ncase-1,case-1,\n")
    done = mil(
        "finetune", "half.csv", "--config", "tuning.toml", "--out", "x", cwd=study, check=False
    )
    assert "1 of 2 slides have no label, e.g. case-1" in done.stderr
