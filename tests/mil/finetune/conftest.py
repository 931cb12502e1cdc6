"""Networks of ``finetune``'s tests see small images."""

import pytest
from lessons import small_inputs


@pytest.fixture(autouse=True, scope="module")
def _small_inputs():
    with pytest.MonkeyPatch.context() as patch:
        small_inputs(patch)
        yield
