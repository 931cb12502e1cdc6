import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.rows import Rows


def values(n, dim, seed=0):
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(1, 60), st.integers(1, 9), st.data())
def test_rows_are_those_of_an_array_whatever_the_order_and_the_choice(tmp_path, n, dim, data):
    whole = values(n, dim)
    order = np.array(data.draw(st.permutations(range(n))))
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    part = data.draw(st.slices(n))
    with Rows(tmp_path, n, dim) as rows:
        for numbers in np.array_split(order, 3):
            if len(numbers):
                rows.put(numbers, whole[numbers])
        kept = rows.kept(keep)
        assert kept.shape == (keep.sum(), dim)
        if part.step in (None, 1):
            assert np.array_equal(kept[part], whole[keep][part])
        half = kept.astype(np.float16)
        assert half.dtype == np.float16
        assert np.array_equal(half[:], whole[keep].astype(np.float16))
        assert rows.filled.all()


def test_threads_fill_together(tmp_path):
    whole = values(4000, 7)
    with Rows(tmp_path, 4000, 7) as rows:
        batches = np.array_split(np.random.default_rng(1).permutation(4000), 300)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda numbers: rows.put(numbers, whole[numbers]), batches))
        assert np.array_equal(rows.kept(rows.filled)[:], whole)


def test_what_was_not_filled_is_known(tmp_path):
    with Rows(tmp_path, 5, 2) as rows:
        rows.put(np.array([1, 4]), np.ones((2, 2), np.float32))
        assert rows.filled.tolist() == [False, True, False, False, True]


def test_the_file_has_no_name(tmp_path):
    with Rows(tmp_path, 5, 2) as rows:
        rows.put(np.array([0]), np.ones((1, 2), np.float32))
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", [0, 10, 4000])
def test_full_disk_is_an_os_error(tmp_path, limit):
    code = f"""
import resource, numpy as np
from pathlib import Path
from features.rows import Rows
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
with Rows(Path('.'), 100, 20) as rows:
    rows.put(np.arange(100), np.ones((100, 20), np.float32))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "File too large" in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
