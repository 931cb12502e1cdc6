"""Slices put in order, and whether they make one volume: equal steps, one orientation, no tilt.

The order and the distance of slices come from their positions alone. File names, instance numbers, slice
locations, slice thickness and the spacing between slices that a file states are often wrong.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from features.errors import VolumeError
from features.volumes.allowances import Allowance
from features.volumes.headers import PARTS, Plane
from features.volumes.volume import Grid

ONE_PLACE_MM = 1e-2  # slices nearer than this lie at one place
ROUNDED_MM = 0.11  # so far may a position in tenths of a mm lie beside its place
UNEVEN = 0.1  # of a step: as far in thick slices
MISSING = 0.25  # of a step: slices farther from even places are never taken as even
ON_PLACE = 0.02  # of a step: a slice so near to a place is taken as it is
TILT = 1e-3  # mm aside for a mm along the normal
SHIFT_MM = 0.05  # aside at least; positions may be rounded to tenths
FINE_MM = 0.1  # pixels below are of micro-CT, and all tolerances in mm are as much smaller
TURN = 1e-3  # radians between slices of one orientation


@dataclass(frozen=True)
class SliceStack:
    """Slices in their order, from the foot of their normal to its tip.

    Attributes:
        planes: the slices.
        steps: the place of each along the normal, in whole steps from the first; a gap skips some.
        step_mm: the distance of two places.
        offsets_mm: (n, 2) how far each slice lies aside of the first, along its rows and columns: tilt.
        notes: what was assumed.
    """

    planes: tuple[Plane, ...]
    steps: NDArray[np.float64]
    step_mm: float
    offsets_mm: NDArray[np.float64]
    notes: tuple[str, ...] = ()

    @property
    def is_tilted(self) -> bool:
        """Whether the slices move aside, as with a tilted gantry."""
        aside = np.abs(self.offsets_mm).max()
        length = self.step_mm * self.steps.max()
        return bool(aside > max(TILT * length, SHIFT_MM * _fineness(self.planes)))


def stack_planes(
    planes: Sequence[Plane],
    name: str,
    *,
    allow: Collection[Allowance] = (),
    thickness_mm: float | None = None,
) -> SliceStack:
    """Put slices in order and check that they make one volume.

    Args:
        planes: slices of one series.
        name: the series, for messages.
        allow: ``gaps`` (missing slices, and slices between places, are interpolated later) and ``tilt``
            (slices that move aside are straightened later).
        thickness_mm: of a slice; the step where there is one slice alone.

    Raises:
        VolumeError: a slice has no place; sizes, orientations or pixel spacings differ; two slices lie at
            one place; slices are missing, unevenly placed or tilted and that is not allowed.
    """
    _check_alike(planes, name)
    along, aside = _places(planes)
    order = np.argsort(along, kind="stable")
    ordered = tuple(planes[place] for place in order)
    along, aside = along[order], aside[order]
    if len(planes) == 1:
        return _single(ordered, name, thickness_mm)
    _check_apart(ordered, along, name)
    step_mm, steps, notes = _even_steps(ordered, along, name, allow_gaps="gaps" in allow)
    stack = SliceStack(ordered, steps, step_mm, aside - aside[0], tuple(notes))
    if stack.is_tilted and "tilt" not in allow:
        _refuse_tilt(stack, name)
    return stack


def split_by_part(planes: Sequence[Plane]) -> list[tuple[str, list[Plane]]]:
    """Slices of one series by what tells those at one place apart, with its words; one group if nothing does.

    Several echoes, b values or time points often share a series. They are told apart by the first element
    that gives every group the same places, each once.
    """
    if any(plane.problem for plane in planes) or len({plane.row_direction for plane in planes}) > 1:
        return [("", list(planes))]
    along, _ = _places(planes)
    one_place_mm = ONE_PLACE_MM * _fineness(planes)
    if len(planes) < 2 or np.diff(np.sort(along)).min() > one_place_mm:
        return [("", list(planes))]
    for keyword, words, unit in PARTS:
        groups: dict[str, list[int]] = {}
        for place, plane in enumerate(planes):
            groups.setdefault(plane.parts.get(keyword, ""), []).append(place)
        if len(groups) > 1 and _cover_the_same(groups, along, one_place_mm):
            return [
                (
                    f"{words} {value or 'not stated'}{unit if value else ''}",
                    [planes[i] for i in places],
                )
                for value, places in sorted(groups.items(), key=lambda item: _sort_key(item[0]))
            ]
    return [("", list(planes))]


def _sort_key(value: str) -> tuple[bool, float, str]:
    try:
        return False, float(value), value
    except ValueError:
        return True, 0.0, value


def _cover_the_same(
    groups: dict[str, list[int]], along: NDArray[np.float64], one_place_mm: float
) -> bool:
    places = [np.sort(along[indices]) for indices in groups.values()]
    if len({len(group) for group in places}) > 1:
        return False
    apart = all(len(group) < 2 or np.diff(group).min() > one_place_mm for group in places)
    return apart and all(np.abs(group - places[0]).max() < one_place_mm for group in places)


def _fineness(planes: Sequence[Plane]) -> float:
    """What tolerances in mm are multiplied with: below 1 for pixels as small as those of micro-CT."""
    return min(1.0, *(min(plane.spacing_mm) / FINE_MM for plane in planes))


def _places(planes: Sequence[Plane]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n,) places along the normal, and (n, 2) along rows and columns, in mm."""
    row, column, normal = axes_of(planes[0])
    positions = np.array([plane.position_mm for plane in planes], dtype=np.float64)
    return positions @ normal, positions @ np.stack([row, column], axis=1)


def axes_of(
    plane: Plane,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The unit vectors along rows, down columns and across slices, at right angles."""
    row = np.asarray(plane.row_direction, dtype=np.float64)
    normal = np.cross(row, np.asarray(plane.column_direction, dtype=np.float64))
    normal /= np.linalg.norm(normal)
    return row, np.cross(normal, row), normal


def _check_alike(planes: Sequence[Plane], name: str) -> None:
    problem = next((plane.problem for plane in planes if plane.problem), "")
    if problem:
        raise VolumeError(f"{name}: {problem}")
    _check_orientations(planes, name)
    sizes = Counter(f"{plane.shape[1]} x {plane.shape[0]} pixels" for plane in planes)
    spacings = Counter("{:.4g} x {:.4g} mm".format(*plane.spacing_mm) for plane in planes)
    for counts, what in ((sizes, "sizes"), (spacings, "pixel spacings")):
        if len(counts) > 1:
            raise VolumeError(
                f"{name}: its slices have several {what} ({_counted(counts)}). They are not one volume: "
                "leave the files of one in the folder."
            )


def _check_orientations(planes: Sequence[Plane], name: str) -> None:
    groups: Counter[str] = Counter()
    first = planes[0]
    for plane in planes:
        turn = max(
            np.linalg.norm(np.subtract(plane.row_direction, first.row_direction)),
            np.linalg.norm(np.subtract(plane.column_direction, first.column_direction)),
        )
        words = _orientation(plane)
        turned = turn >= TURN and words == _orientation(first)
        groups[f"{words}, turned by {float(turn):.3f}" if turned else words] += 1
    if len(groups) > 1:
        raise VolumeError(
            f"{name}: its slices lie in several orientations ({_counted(groups)}), as localisers do. Keep "
            "only the files of one orientation in the folder."
        )


def _orientation(plane: Plane) -> str:
    return ("sagittal", "coronal", "axial")[int(np.abs(axes_of(plane)[2]).argmax())]


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} of {words}" for words, count in counts.most_common(4))


def _single(planes: tuple[Plane, ...], name: str, thickness_mm: float | None) -> SliceStack:
    if not thickness_mm or thickness_mm <= 0:
        raise VolumeError(
            f"{name}: it is one slice, and its file states no SliceThickness, so that its extent in mm is "
            "unknown. Export the whole series."
        )
    note = f"one slice: its extent is the slice thickness of {thickness_mm:g} mm"
    return SliceStack(planes, np.zeros(1), thickness_mm, np.zeros((1, 2)), (note,))


def _check_apart(planes: tuple[Plane, ...], along: NDArray[np.float64], name: str) -> None:
    at_one_place = np.flatnonzero(np.diff(along) < ONE_PLACE_MM * _fineness(planes))
    if len(at_one_place):
        first = int(at_one_place[0])
        raise VolumeError(
            f"{name}: {len(at_one_place) + 1} of {len(planes)} slices share a place; "
            f"{_two_names(planes, first)} both lie {along[first]:.2f} mm along the normal. They are copies, "
            "or time points, echoes or b values that no element tells apart. Keep one of each in the "
            "folder."
        )


def _even_steps(
    planes: tuple[Plane, ...], along: NDArray[np.float64], name: str, *, allow_gaps: bool
) -> tuple[float, NDArray[np.float64], list[str]]:
    """The step, the place of each slice in steps, and notes."""
    gaps = np.diff(along)
    total = float(along[-1] - along[0])
    even = total / len(gaps)
    places = np.arange(len(along), dtype=np.float64)
    rounded_mm = ROUNDED_MM * _fineness(planes)
    if np.abs((along - along[0]) / even - places).max() < _slack(even, rounded_mm):
        return even, places, _rounded(along, even, rounded_mm)
    step = float(np.sort(gaps)[(len(gaps) - 1) // 2])
    if not allow_gaps:
        _refuse_uneven(planes, gaps, step, name)
    counts = np.maximum(np.round(gaps / step), 1)
    fitted = total / float(counts.sum())
    steps = (along - along[0]) / fitted
    places = np.concatenate([[0.0], np.cumsum(counts)])
    if np.abs(steps - places).max() < _slack(fitted, rounded_mm):
        step, steps = fitted, places
    else:
        steps = (along - along[0]) / step
    count = round(float(steps[-1])) + 1
    near = np.abs(steps[:, None] - np.arange(count)).min(axis=0) < ON_PLACE
    note = (
        f"{int((~near).sum())} of {count} slices interpolated (steps of {gaps.min():.2f} to "
        f"{gaps.max():.2f} mm)"
    )
    return step, steps, [note]


def _slack(step_mm: float, rounded_mm: float) -> float:
    """How far a slice may lie from its place, in steps."""
    return min(max(rounded_mm / step_mm, UNEVEN), MISSING)


def _rounded(along: NDArray[np.float64], step_mm: float, rounded_mm: float) -> list[str]:
    """A note where slices lie beside even places by more than a position in tenths of a millimetre."""
    beside = float(np.abs(along - along[0] - np.arange(len(along)) * step_mm).max())
    if beside <= rounded_mm:
        return []
    return [f"slices up to {beside:.2f} mm beside even places are taken as {step_mm:.2f} mm apart"]


def _refuse_uneven(
    planes: tuple[Plane, ...], gaps: NDArray[np.float64], step: float, name: str
) -> None:
    wide = int(np.argmax(np.abs(gaps - step)))
    sizes = sorted({f"{gap:.2f}" for gap in gaps}, key=float)
    shown = ", ".join(sizes) if len(sizes) < 5 else f"{sizes[0]} to {sizes[-1]}"
    times = float(gaps[wide]) / step
    missing = round(times) - 1
    if missing >= 1 and abs(times - round(times)) < MISSING:
        reason = "a slice is missing" if missing == 1 else f"{missing} slices are missing"
    else:
        reason = "they are no slices of one volume, or their positions are wrong"
    raise VolumeError(
        f"{name}: its slices are not evenly placed; steps of {shown} mm. From "
        f"{_two_names(planes, wide, 'to')} there are {gaps[wide]:.2f} mm where {step:.2f} mm are usual: "
        f"{reason}. Copy the series again, or allow gaps (allow=gaps) to have them interpolated."
    )


def _two_names(planes: tuple[Plane, ...], first: int, word: str = "and") -> str:
    """A slice and the next, with their folders where their names are equal."""
    one, other = planes[first], planes[first + 1]
    if one.name != other.name:
        return f"{one.name} {word} {other.name}"
    return f"{one.path.parent.name}/{one.name} {word} {other.path.parent.name}/{other.name}"


def _refuse_tilt(stack: SliceStack, name: str) -> None:
    last = stack.offsets_mm[-1]
    rise = float(np.hypot(*last) / stack.steps[-1])
    degrees = float(np.degrees(np.arctan2(rise, stack.step_mm)))
    if np.abs(
        stack.offsets_mm - np.outer(stack.steps / stack.steps[-1], last)
    ).max() > SHIFT_MM * _fineness(stack.planes):
        aside = np.abs(stack.offsets_mm).max()
        raise VolumeError(
            f"{name}: its slices do not lie above each other; they move aside by up to {aside:.2f} mm, and "
            "not evenly. They are not one volume: export the series again, or allow a tilt (allow=tilt) to "
            "have each slice moved to its place."
        )
    raise VolumeError(
        f"{name}: each slice is shifted by {rise:.3f} mm from the previous one, {degrees:.1f} "
        "degrees from the normal: a tilted gantry. Allow a tilt (allow=tilt) to have the slices "
        "straightened, or convert the series with a tool that corrects it."
    )


def fill_stack(
    stack: SliceStack, values: NDArray[np.float32], outside: float
) -> tuple[NDArray[np.float32], Grid, list[str]]:
    """The volume of a stack: tilt straightened, gaps interpolated; unchanged where there are none.

    Args:
        stack: slices in their order.
        values: (n, rows, columns) values of them.
        outside: the value beside a slice that is moved.

    Returns:
        (z, y, x) values, their grid, and notes.
    """
    first = stack.planes[0]
    origin = np.asarray(first.position_mm, dtype=np.float64)
    row, column, normal = axes_of(first)
    notes = list(stack.notes)
    if stack.is_tilted:
        values, moved_mm = _straighten(stack, values, outside)
        origin = origin + moved_mm[0] * row + moved_mm[1] * column
        notes.append(
            f"slices moved by up to {np.abs(stack.offsets_mm).max():.2f} mm: a tilted gantry"
        )
    if not np.array_equal(stack.steps, np.arange(len(stack.steps))):
        values = _interpolate(stack.steps, values)
    grid = Grid(
        shape=(values.shape[0], values.shape[1], values.shape[2]),
        spacing_mm=(first.spacing_mm[0], first.spacing_mm[1], stack.step_mm),
        origin_mm=(float(origin[0]), float(origin[1]), float(origin[2])),
        direction=np.stack([row, column, normal], axis=1),
    )
    return values, grid, notes


def _interpolate(steps: NDArray[np.float64], values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Slices at 0, 1, 2, ... steps, linear between their neighbours; a slice at a place is taken as it is."""
    count = round(float(steps[-1])) + 1
    filled = np.empty((count, *values.shape[1:]), dtype=np.float32)
    for place in range(count):
        nearest = int(np.abs(steps - place).argmin())
        if abs(steps[nearest] - place) < ON_PLACE:
            filled[place] = values[nearest]
            continue
        above = int(np.clip(np.searchsorted(steps, place), 1, len(steps) - 1))
        share = np.clip((place - steps[above - 1]) / (steps[above] - steps[above - 1]), 0, 1)
        filled[place] = values[above - 1] * (1 - share) + values[above] * share
    return filled


def _straighten(
    stack: SliceStack, values: NDArray[np.float32], outside: float
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Move each slice to its place on a canvas that holds all, and where the canvas begins, in mm."""
    spacing = np.asarray(stack.planes[0].spacing_mm)
    offsets_px = stack.offsets_mm / spacing
    low, high = np.floor(offsets_px.min(axis=0)), np.ceil(offsets_px.max(axis=0))
    columns, rows = (high - low).astype(int) + np.asarray(values.shape[:0:-1])
    canvas = np.empty((len(values), rows, columns), dtype=np.float32)
    for place, (x, y) in enumerate(offsets_px - low):
        ndimage.affine_transform(
            values[place], np.eye(2), offset=(-y, -x), output_shape=(rows, columns), order=1,
            mode="constant", cval=outside, output=canvas[place],
        )  # fmt: skip
    return canvas, low * spacing


def gaps_mm(planes: Sequence[Plane]) -> list[float]:
    """The distances from slice to slice along the normal, for a list of what a folder holds."""
    along = np.sort(_places(planes)[0])
    return [float(b - a) for a, b in pairwise(along)]
