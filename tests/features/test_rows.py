"""FeatureSpool on the disk against plain arrays in memory."""

import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from features.extraction import spool as module
from features.extraction.spool import FeatureSpool

HERE = Path(__file__).parents[2]


def filled(folder, values, order=None):
    """FeatureSpool that hold an array, put in pieces of one to three in some order."""
    held = FeatureSpool(folder, len(values), values.shape[1])
    numbers = np.arange(len(values)) if order is None else np.asarray(order)
    start = 0
    while start < len(numbers):
        piece = numbers[start : start + 1 + start % 3]
        held.put(piece, values[piece])
        start += len(piece)
    return held


def seeded(n, dim, seed=0):
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


@settings(max_examples=150)
@given(data=st.data())
def test_any_order_any_mask_any_slice_is_that_of_an_array(tmp_path_factory, data):
    n, dim = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 5))
    finite = st.floats(-1e4, 1e4, width=32)
    values = data.draw(nps.arrays(np.float32, (n, dim), elements=finite))
    order = data.draw(st.permutations(range(n)))
    keep = data.draw(nps.arrays(bool, n))
    part = data.draw(st.slices(n))
    dtype = data.draw(st.sampled_from([np.float32, np.float16]))
    with filled(tmp_path_factory.getbasetemp(), values, order) as rows:
        assert rows.filled.all()
        view, expected = rows.select(keep, dtype), values[keep].astype(dtype)
        assert (view.shape, view.dtype, len(view)) == (expected.shape, dtype, len(expected))
        got = view[part]
        assert got.dtype == dtype
        assert np.array_equal(got, expected[part])


def test_rows_never_filled_are_known_and_not_read(tmp_path):
    values = seeded(50, 7)
    some = np.array([3, 4, 5, 20, 31])
    with FeatureSpool(tmp_path, 50, 7) as rows:
        rows.put(some, values[some])
        assert np.flatnonzero(rows.filled).tolist() == some.tolist()
        assert np.array_equal(rows.select(rows.filled)[:], values[some])


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_half_precision_view_is_that_of_an_array(tmp_path, dtype):
    values = seeded(100, 33)
    keep = np.arange(100) % 3 > 0
    with filled(tmp_path, values) as rows:
        for view in (rows.select(keep, dtype), rows.select(keep).astype(dtype)):
            assert view[10:40].tobytes() == values[keep].astype(dtype)[10:40].tobytes()


@pytest.mark.parametrize("given_as", [np.float64, np.float16, np.float32])
def test_values_of_any_format_and_layout_are_put_as_float32(tmp_path, given_as):
    values = np.asfortranarray(seeded(20, 9).astype(given_as))
    with FeatureSpool(tmp_path, 40, 9) as rows:
        rows.put(np.arange(0, 40, 2), values[:, :])
        assert np.array_equal(rows.select(rows.filled)[:], values.astype(np.float32))


def test_a_row_put_again_is_the_last(tmp_path):
    with filled(tmp_path, seeded(5, 3)) as rows:
        rows.put(np.array([2, 4]), np.ones((2, 3), np.float32))
        assert (rows.select(np.array([0, 0, 1, 0, 1], bool))[:] == 1).all()


def test_as_many_values_as_numbers(tmp_path):
    with FeatureSpool(tmp_path, 5, 3) as rows, pytest.raises(ValueError, match="shorter"):
        rows.put(np.arange(3), np.ones((2, 3), np.float32))


def test_threads_fill_and_read_at_once(tmp_path):
    values = seeded(4_000, 64)
    order = np.random.default_rng(1).permutation(len(values)).reshape(-1, 20)
    wrong = []
    with FeatureSpool(tmp_path, len(values), 64) as rows:

        def work(mine):
            for numbers in mine:
                rows.put(numbers, values[numbers])
                keep = np.zeros(len(values), bool)
                keep[numbers] = True
                got = rows.select(keep)[:]
                if not np.array_equal(got, values[np.sort(numbers)]):
                    wrong.append(numbers)

        threads = [threading.Thread(target=work, args=(order[part::8],)) for part in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert rows.filled.all()
        assert np.array_equal(rows.select(rows.filled)[:], values)


def test_what_is_not_kept_is_not_read(tmp_path, monkeypatch):
    """One row in a hundred: memory must not be that of all of them."""
    values, read, preadv = seeded(1_000, 16), [], os.preadv

    def counting(handle, buffers, place):
        read.extend(len(buffer) for buffer in buffers)
        return preadv(handle, buffers, place)

    monkeypatch.setattr(module.os, "preadv", counting)
    keep = np.arange(1_000) % 100 == 7
    with filled(tmp_path, values) as rows:
        assert np.array_equal(rows.select(keep)[:], values[keep])
        assert sum(read) == 10 * 16 * 4
        read.clear()
        assert np.array_equal(rows.select(rows.filled)[:], values)
        assert read == [1_000 * 16 * 4]  # neighbours together


def test_system_that_reads_and_writes_in_small_portions(tmp_path, monkeypatch):
    pwrite, preadv = os.pwrite, os.preadv
    monkeypatch.setattr(module.os, "pwrite", lambda f, data, at: pwrite(f, data[:5], at))
    monkeypatch.setattr(module.os, "preadv", lambda f, b, at: preadv(f, [b[0][:7]], at))
    values = seeded(11, 5)
    with filled(tmp_path, values) as rows:
        assert np.array_equal(rows.select(rows.filled)[2:9], values[2:9])


def test_file_has_no_name_and_its_room_is_given_back(tmp_path):
    before = set(Path("/proc/self/fd").iterdir())
    with filled(tmp_path, seeded(10, 3)):
        assert list(tmp_path.iterdir()) == []
    assert set(Path("/proc/self/fd").iterdir()) == before


def run(folder, code):
    """Fill rows in a process of its own."""
    script = f"""
import os, resource, signal
import numpy as np
from pathlib import Path
from features.extraction.spool import FeatureSpool
rows = FeatureSpool(Path({str(folder)!r}), 1000, 100)
{code}
"""
    return subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_killed_process_leaves_no_file(tmp_path):
    put = "rows.put(np.arange(1000), np.ones((1000, 100)))"
    done = run(tmp_path, f"{put}\nos.kill(os.getpid(), signal.SIGKILL)")
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", [0, 1, 399, 400, 200_001, 399_999])
def test_full_disk_is_an_os_error_and_the_rows_are_not_filled(tmp_path, limit):
    code = f"""
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
try:
    rows.put(np.arange(1000), np.ones((1000, 100)))
except OSError as error:
    print(error.errno, rows.filled.any())
"""
    done = run(tmp_path, code)
    assert done.stdout.split() == ["27", "False"], done.stderr
    assert list(tmp_path.iterdir()) == []


def test_enough_room_is_enough(tmp_path):
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))"
    done = run(tmp_path, f"{limit}\nrows.put(np.arange(1000), np.ones((1000, 100)))\nprint('put')")
    assert done.stdout.split() == ["put"], done.stderr
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
