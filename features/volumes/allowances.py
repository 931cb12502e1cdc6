"""What is taken of a series only where the user says so, as it is a guess."""

from typing import Literal

# gaps: missing slices are interpolated. tilt: slices of a tilted gantry are straightened. sparse: slices
# between contoured ones get a shape between theirs. frame: outlines lie in the frame of the image though the
# files do not say so. part: the dose of a part of a plan.
Allowance = Literal["gaps", "tilt", "sparse", "frame", "part"]
