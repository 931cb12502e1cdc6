"""The parts of a run are the run: no slide is left out and none is done twice."""

import random

import pytest

from features.extraction.jobs import SlideJob, shard


@pytest.fixture
def jobs(tmp_path):
    """Slides of many sizes, some alike, and one whose file is missing."""
    made = []
    for number in range(23):
        path = tmp_path / f"s{number}.svs"
        path.write_bytes(bytes(number // 3 * 100))
        made.append(SlideJob(slide=path.stem, files=(path,)))
    made[7].files[0].unlink()
    return made


@pytest.mark.parametrize("of", [1, 2, 3, 5, 22, 23, 24, 60])
def test_every_slide_is_in_exactly_one_part_whatever_the_order_of_the_table(jobs, of):
    found = []
    for number in range(1, of + 1):
        part = shard(random.Random(number).sample(jobs, len(jobs)), number, of)
        assert len(part) in (len(jobs) // of, len(jobs) // of + 1)
        found += [job.slide for job in part]
    assert sorted(found) == sorted(job.slide for job in jobs)


def test_parts_are_of_about_equal_work(jobs):
    work = [
        sum(
            path.stat().st_size
            for job in shard(jobs, number, 3)
            for path in job.files
            if path.exists()
        )
        for number in (1, 2, 3)
    ]
    assert max(work) - min(work) <= max(
        job.files[0].stat().st_size for job in jobs if job.files[0].exists()
    )
