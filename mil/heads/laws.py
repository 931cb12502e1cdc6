"""What every head obeys, as functions that any head can be held to.

Each law takes ``build``, which makes a fresh head, and fails with an AssertionError. They need no test
framework; ``check_head`` runs them all::

    from mil.heads import check_head

    check_head(MyHead)
"""

import copy
from collections.abc import Callable
from functools import partial

from mil.heads.head import Head, HeadSettings
from mil.heads.law_tools import Build
from mil.heads.laws_of_bags import (
    law_attention_is_a_share,
    law_bag_without_tiles_is_refused,
    law_batch_equals_loop,
    law_brief_says_what_the_bag_says,
    law_chunks_are_the_whole,
    law_contributions_add_up,
    law_coords_change_nothing,
    law_evaluation_is_deterministic,
    law_long_bag_is_read_whole,
    law_mask_is_bool_and_fits,
    law_no_label_goes_in,
    law_one_tile_is_a_bag,
    law_order_changes_nothing,
    law_output_is_whole,
    law_padding_changes_nothing,
    law_tiles_enter_by_their_embedding,
    law_unbatched_is_refused,
)
from mil.heads.laws_of_numbers import (
    law_autocast_is_borne,
    law_gradients_reach_every_parameter,
    law_gradients_reach_the_tiles,
    law_half_precision_is_taken,
    law_inference_mode_is_borne,
    law_large_features_stay_finite,
    law_padding_teaches_nothing,
    law_saving_is_identity,
)

# What a head under test may fail with instead of an answer.
FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)

LAWS: tuple[Callable[[Build], None], ...] = (
    law_output_is_whole,
    law_padding_changes_nothing,
    law_attention_is_a_share,
    law_order_changes_nothing,
    law_coords_change_nothing,
    law_long_bag_is_read_whole,
    law_one_tile_is_a_bag,
    law_evaluation_is_deterministic,
    law_batch_equals_loop,
    law_bag_without_tiles_is_refused,
    law_unbatched_is_refused,
    law_mask_is_bool_and_fits,
    law_gradients_reach_every_parameter,
    law_gradients_reach_the_tiles,
    law_padding_teaches_nothing,
    law_saving_is_identity,
    law_large_features_stay_finite,
    law_half_precision_is_taken,
    law_autocast_is_borne,
    law_inference_mode_is_borne,
    law_no_label_goes_in,
    law_contributions_add_up,
    law_tiles_enter_by_their_embedding,
    law_chunks_are_the_whole,
    law_brief_says_what_the_bag_says,
)


def check_head(head: Head | type[Head] | Build) -> None:
    """Hold a head to all laws.

    No law can tell of every head whether the attention it reports is what it pools by: that of DSMIL leaves
    out the critical tiles, which answer for themselves, and TransMIL's tiles have read one another before.
    A head that is nothing but its attention says ``adds_up``, and is held to it.

    Args:
        head: a subclass of ``Head``, judged with 2 and with 5 classes; a function that makes a fresh head;
            or a head, which is copied, and so has no fresh weights by which a state that is not saved shows.

    Raises:
        AssertionError: naming every law that is broken, and what was seen.
        TypeError: it is no head.

    Example:
        import torch

        class LargestValues(mil.Head):
            def __init__(self, settings: mil.HeadSettings) -> None:
                super().__init__(settings)
                self.classify = torch.nn.Linear(settings.dim, settings.n_outputs)

            def pool(self, features, mask, coords):
                attention = (mask / mask.sum(dim=1, keepdim=True)).unsqueeze(1)  # (B, 1, N)
                largest = features.masked_fill(~mask.unsqueeze(2), -torch.inf).amax(dim=1)  # (B, D)
                return mil.HeadOutput(
                    logits=self.classify(largest),
                    attention=attention,
                    scores=attention.log(),
                    embedding=largest,
                )

        mil.check_head(LargestValues)
    """
    if not (callable(head) and (not isinstance(head, type) or issubclass(head, Head))):
        raise TypeError(
            f"check_head takes a subclass of Head, a head or a maker of one; got {head!r}."
        )
    broken = []
    for build in _builds(head):
        for law in LAWS:
            try:
                law(build)
            except FAILURES as error:
                seen = str(error) if isinstance(error, AssertionError) else repr(error)
                n_classes = build().settings.n_outputs
                broken.append(f"{law.__name__} ({n_classes} classes): {seen}")
    if broken:
        raise AssertionError("\n".join(["The head breaks these laws:", *broken]))


def _builds(head: Head | type[Head] | Build) -> list[Build]:
    """Makers of fresh heads."""
    if isinstance(head, Head):
        return [partial(copy.deepcopy, head)]
    if isinstance(head, type):
        shapes = [HeadSettings(dim=7, n_outputs=n_classes, width=10) for n_classes in (2, 5)]
        return [partial(head, shape) for shape in shapes]
    return [head]
