"""Wherever slides become bags like a model's, no message asks for another recipe."""

from types import SimpleNamespace

import pytest

from features.extraction import extract as module
from features.extraction.jobs import SlideJob
from mil.runs.fold_bags import ExternalSlides, embed_by_folds
from mil.runs.inputs import extract_slides

RECIPE = {"backbone": "resnet18", "weights": "pretrained", "region": "tissue", "mpp": 0.25}


@pytest.fixture
def extracted(monkeypatch):
    """The jobs that are given to extraction, which fails for each."""
    jobs = []

    def fail(given, *_arguments, **_options):
        jobs.extend(given)
        return [
            SimpleNamespace(slide=job.slide, status="failed", reason="no", empty=False, blank=False)
            for job in given
        ]

    monkeypatch.setattr(module, "extract", fail)
    return jobs


def test_slides_for_a_model(extracted, tmp_path):
    jobs = [SlideJob(slide=name[0], files=(tmp_path / name,)) for name in ("a.svs", "b.ndpi")]
    failed = extract_slides(jobs, RECIPE, tmp_path, weights=None, progress=None)
    assert failed.keys() == {"a", "b"}
    assert [job.fixed for job in extracted] == [True, True]


def test_slides_for_the_backbone_of_a_fold(extracted, tmp_path):
    (tmp_path / "w").touch()
    run = SimpleNamespace(folds=[tmp_path / "fold"], fold_weights=lambda _: tmp_path / "w")
    jobs = [SlideJob(slide="c", files=(tmp_path / "c.svs",))]
    members = [SimpleNamespace(recipe=RECIPE)]
    embed_by_folds(
        run, members, jobs, ExternalSlides(folder=tmp_path), tmp_path, allow_missing=True
    )
    assert [job.fixed for job in extracted] == [True]
