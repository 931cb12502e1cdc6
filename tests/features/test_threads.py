"""Short operations run on one thread, and whoever comes after finds the threads as they were."""

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from features.threads import one_thread


def threads():
    return {torch.get_num_threads()} | {pool["num_threads"] for pool in threadpool_info()}


@pytest.mark.parametrize("error", [None, ValueError])
def test_torch_and_linear_algebra_have_one_thread_within_and_as_many_as_before_after(error):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with threadpool_limits(2):
            assert threads() == {2}
            try:
                with one_thread():
                    assert threads() == {1}
                    if error:
                        raise error
            except ValueError:
                pass
            assert threads() == {2}
    finally:
        torch.set_num_threads(before)
