"""A run from Python, explained: maps of its slides, and which method is the most faithful."""

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from mil.api.options import SlideFiles, StrPath, as_path, silence
from mil.runs import run as stored

if TYPE_CHECKING:
    from collections.abc import Callable

    from features.progress import Progress
    from mil.explanation.compare_methods import MethodComparison
    from mil.explanation.write import Explanation


class ExplainedRun(stored.Run):
    """A run whose models can be explained."""

    def explain(
        self,
        slide: str,
        *,
        method: str | None = None,
        model: str | None = None,
        target: str | None = None,
        regions: StrPath | None = None,
        progress: "Progress | None" = None,
    ) -> "Explanation":
        """Explain a slide by the model that has not seen its case, and measure how faithful the map is.

        Args:
            slide: its name, without folder and suffix.
            method: a name of ``mil.list_methods()``; if not given ``evidence`` where the model's answer is a
                sum over tiles, else ``attention`` or ``single-tile``.
            model: name of the model; if not given the first of the run that suits the method.
            target: the class to explain, or ``risk``; if not given the predicted class, or the risk.
            regions: folder of annotations, by slide, of what the map should find.
            progress: shows how the work advances.

        Returns:
            The map with its measures; ``save(folder)`` writes PNG, CSV, GeoJSON for QuPath, and JSON.

        Raises:
            FitError: method, model and bag do not suit each other, or the method needs the slide's pixels.
            RunError: ``slide`` is a file, or the bag or the model has changed since the run.
            BagError: the slide's bag is missing or damaged.

        Example:
            explanation = mil.open_run("run").explain("case-01-s1", method="evidence", model="abmil")
            print(explanation.answer, explanation.verdict)
            print(explanation.scores.values)  # (N,) one score per tile
            explanation.save("explained")
        """
        from mil.errors import FitError, RunError
        from mil.explanation.request import MapRequest
        from mil.explanation.write import explain_bag

        if Path(slide).name != slide or Path(slide).suffix == ".h5":
            raise RunError(
                f"{slide} is a file; explain takes the name of a slide of the run. Call write_map for files."
            )
        request = MapRequest(
            method=method,
            model=model,
            target=target,
            regions=as_path(regions),
        )
        if request.row is not None and request.row.needs_slide:
            raise FitError(
                f"Method {method} looks into the slide's pixels. Call write_map with the folder of slides, "
                "or choose another method."
            )
        return explain_bag(self, self.bag(slide), request, progress=progress)

    def write_map(  # noqa: PLR0913 - what, and how it is read
        self,
        source: StrPath,
        out: StrPath,
        *,
        method: str | None = None,
        model: str | None = None,
        target: str | None = None,
        regions: StrPath | None = None,
        mpp: float | None = None,
        ome_tiff: bool = False,
        notify: "Callable[[str], None] | None" = None,
        progress: "Progress | None" = None,
        **files: Unpack[SlideFiles],
    ) -> "Explanation":
        """Explain a bag or a slide, which becomes a bag first, and write the map's files.

        With the slide itself also its highest and lowest tiles are drawn, and maps within them.

        Args:
            source: a bag (.h5), a slide, or the name of a slide of the run.
            out: the folder to write.
            method: as in ``explain``; with the slide also ``grad-cam`` and ``guided-grad-cam``.
            model: as in ``explain``.
            target: as in ``explain``.
            regions: as in ``explain``.
            mpp: micrometres per pixel of the picture under the map and of the finest level of the OME-TIFF.
            ome_tiff: also paint the map on the slide itself.
            notify: called with remarks on the slide, as ``print``.
            progress: shows how the work advances.
            **files: see ``mil.api.options.SlideFiles``.

        Returns:
            The map with its measures; ``paths`` are the files.

        Raises:
            FitError: method, model and bag do not suit each other, or the method needs the slide.
            RunError: there is no such file, or the bag or the model has changed since the run.
            SlideError, BagError: the slide or the bag cannot be used.

        Example:
            mapped = mil.open_run("run").write_map("store/case-01-s1.h5", "explained", slides="slides", mpp=1)
            print([path.name for path in mapped.paths])
        """
        from mil.explanation.request import MapInput, MapRequest
        from mil.explanation.write import explain_input

        request = MapRequest(
            method=method,
            model=model,
            target=target,
            regions=as_path(regions),
            mpp=mpp,
            ome_tiff=ome_tiff,
        )
        bag_or_slide = MapInput(
            path=Path(source),
            slides=as_path(files.get("slides")),
            annotations=as_path(files.get("annotations")),
            classes=tuple(files.get("classes", ())),
            slide_mpp=files.get("slide_mpp"),
            weights=files.get("weights"),
        )
        bag_or_slide = bag_or_slide.at(self)
        request.check_slide(available=bag_or_slide.has_slide)
        bag_or_slide.check(self)
        return explain_input(
            self, bag_or_slide, Path(out), request, notify=notify or silence, progress=progress
        )

    def compare_methods(
        self,
        out: StrPath,
        *,
        model: str | None = None,
        target: str | None = None,
        regions: StrPath | None = None,
        progress: "Progress | None" = None,
    ) -> "MethodComparison":
        """Explain every slide by every method, and find which is the most faithful to the model.

        Args:
            out: folder for the table.
            model: as in ``explain``.
            target: as in ``explain``.
            regions: as in ``explain``.
            progress: shows the slides.

        Raises:
            FitError: the run has no such model or class.
            RunError: a bag or a model has changed since the run.

        Example:
            compared = mil.open_run("run").compare_methods("methods", model="abmil")
            print(compared.conclusion)
        """
        from mil.explanation.compare_methods import compare_methods

        return compare_methods(
            self, Path(out), model=model, target=target, regions=as_path(regions), progress=progress
        )
