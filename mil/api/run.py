"""A run from Python: judged, audited, explained, reported, packed."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from features.arguments import checked
from mil.api.explaining import ExplainedRun
from mil.api.options import StrPath, as_path
from mil.runs import run as stored

if TYPE_CHECKING:  # torch, pandas and matplotlib come only with what needs them
    from features.progress import Progress
    from mil.answers.package import Package
    from mil.audit.run import Audit
    from mil.concepts.run import RunConcepts
    from mil.evaluation.judge import Comparison, Evaluation
    from mil.evaluation.predictions import Predictions
    from mil.report.decision import RunDecision
    from mil.settings import JudgeSettings
    from mil.view.server import Viewer


class Run(ExplainedRun):
    """The folder of a cross-validation or of a trained model, and what can be done with it.

    Besides the methods below, ``run.models`` are the names of its models, ``run.cohort()`` is the cohort with
    the bags it was tested on, ``run.folds`` says who was trained on and who was tested, ``run.bag(slide)``
    is the bag of a slide, ``run.predictions()`` are the predictions out of fold, and
    ``run.model_for(slide, model)`` is the fitted model that has not seen the slide's case, with its relation
    to that case.

    Example:
        run = mil.open_run("run")
        print(run.models, len(run.folds), "folds")
        fitted, relation = run.model_for("case-01-s1", "abmil")
        print(relation)  # model of fold 3, not trained on this case
    """

    def evaluate(
        self,
        settings: "JudgeSettings | None" = None,
        *,
        models: Sequence[str] = (),
        out: StrPath | None = None,
    ) -> "Evaluation":
        """Judge models over the cases, with 95 % intervals; see ``mil.evaluate``.

        Args:
            settings: intervals, prevalence, coverage; the defaults if not given.
            models: to judge; all if empty.
            out: folder for metrics.json, metrics.csv and predictions.csv; nothing is written if not given.

        Raises:
            RunError: the predictions are not those the run has written, or ``out`` is a run folder.
            PredictionsError: there is no such model, or a setting does not suit what was predicted.

        Example:
            auc = mil.open_run("run").evaluate(models=["abmil"], out="judged")["abmil"].metrics["auc"]
            print(auc.value, auc.low, auc.high, auc.method)
        """
        from mil.evaluation.judge import evaluate

        return evaluate(self.predictions(), settings, models=models, out=as_path(out))

    def compare(
        self,
        other: "stored.Run | Predictions | StrPath | None" = None,
        *,
        models: Sequence[str] = (),
        out: StrPath | None = None,
    ) -> "Comparison":
        """Test models against each other over the same cases, of this run or of two; see ``mil.compare``.

        Args:
            other: a run, its folder, or predictions; the models of this run are paired if not given.
            models: to compare; all if empty.
            out: folder for comparison.json and comparison.csv; nothing is written if not given.

        Raises:
            RunError: the predictions are not those the run has written, or ``out`` is a run folder.
            PredictionsError: there is no such model, or the other is of other cases or outcomes.

        Example:
            run = mil.open_run("run")
            for pair in run.compare().pairs:
                print(pair.first, pair.second, pair.to_json())
            print(run.compare("run", models=["abmil"], out="compared").rows())
        """
        from mil.evaluation.judge import compare
        from mil.evaluation.predictions import Predictions

        names, second = (str(self.path), "other"), None
        if isinstance(other, Predictions):
            second = other
        elif other is not None:
            opened = stored.to_run(other)
            names, second = (str(self.path), str(opened.path)), opened.predictions()
        return compare(self.predictions(), second, names=names, models=models, out=as_path(out))

    def write_report(
        self, path: StrPath | None = None, *, progress: "Progress | None" = None
    ) -> Path:
        """Write the run as one self-contained page, with its figures as files beside it.

        Args:
            path: the page to write; ``report.html`` in the folder of the run if not given.
            progress: shows how many heatmaps are drawn.

        Returns:
            Where the page is.

        Raises:
            RunError: the run is not a finished cross-validation.
            CohortError: its table or its bags are no longer where they were.

        Example:
            mil.open_run("run").write_report("report.html")
        """
        from mil.report.gather import gather
        from mil.report.page import write_report

        page = self.path / "report.html" if path is None else Path(path)
        write_report(gather(self, progress=progress), page)
        return page

    def audit(
        self,
        *,
        curve: str = "",
        out: StrPath | None = None,
        progress: "Progress | None" = None,
    ) -> "Audit":
        """Look for other explanations of the result: site, scanner, stain, duplicates, folds, few cases.

        Args:
            curve: also train this model on a quarter, a half and three quarters of the training cases.
            out: folder for index.html, audit.csv and audit.json; nothing is written if not given.
            progress: shows how the work advances.

        Returns:
            The findings; ``summary.problems`` is empty where there are none.

        Raises:
            RunError: the run is no finished cross-validation, or its files or bags have changed.
            CohortError: its table or its bags are no longer where they were.

        Example:
            audited = mil.open_run("run").audit(out="audited")
            print(audited.headline, audited.summary.problems)
        """
        from mil.audit.run import audit_run
        from mil.heads.registry import check_names
        from mil.report.audit import check_results, write_audit

        check_names([curve] if curve else [])
        audit = audit_run(self, curve_model=curve, progress=progress)
        if out is not None:
            check_results(audit, Path(out))
            write_audit(audit, Path(out))
        return audit

    def decision_curves(
        self,
        *,
        positive: str | None = None,
        horizon: float | None = None,
        lowest: float = 0.05,
        highest: float = 0.5,
        seed: int = 0,
        out: StrPath | None = None,
    ) -> "RunDecision":
        """Net benefit of acting on each model, beside treating all and none, drawn and as a table.

        Args:
            positive: the class to act on, or the lowest grade; the second of two classes if not given.
            horizon: of survival, the time until which an event counts; the middle one if not given.
            lowest: lowest threshold probability, above 0.
            highest: highest threshold probability, below 1.
            seed: of the bootstrap samples behind the bands.
            out: folder for the curves; ``decision`` in the run's folder if not given.

        Raises:
            RunError: the run is not a finished cross-validation.
            PredictionsError: there is no such class or time, or the thresholds do not rise from 0 to 1.

        Example:
            decision = mil.open_run("run").decision_curves(positive="LMS")
            print(decision.picture, decision.curves.of("abmil").benefit)
        """
        from mil.report.decision import write_run_decision

        return write_run_decision(
            self,
            as_path(out),
            positive=positive,
            horizon=horizon,
            lowest=lowest,
            highest=highest,
            seed=seed,
        )

    def concepts(
        self, out: StrPath, *, slides: StrPath | None = None, n_concepts: int = 12, seed: int = 0
    ) -> "RunConcepts":
        """Cluster the tiles, and show the share of each cluster in each case and the class it supports.

        Args:
            out: folder for the page and its tables.
            slides: folder with the slides; without it, tiles are grey.
            n_concepts: number of clusters, 2 or more.
            seed: of the sampled tiles and the initial centres.

        Raises:
            RunError: the run is no cross-validation on classes with bags of one backbone.
            CohortError: there are fewer tiles than concepts, or a fold lacks a class.
            SlideError: there is no folder of slides, or no slide in it.

        Example:
            concepts = mil.open_run("run").concepts("concepts", n_concepts=3)
            print(concepts.page, concepts.result.correct, "of", concepts.result.n)
        """
        from features.slides.find import find_slides
        from mil.concepts.run import write_run_concepts

        return write_run_concepts(
            self,
            Path(out),
            files=find_slides(Path(slides)) if slides is not None else {},
            n_concepts=n_concepts,
            seed=seed,
        )

    def package(
        self, out: StrPath, *, model: str = "", segmenter: StrPath | None = None
    ) -> "Package":
        """Pack a model into a folder that answers for new slides on another machine, without a network.

        Args:
            out: the new folder.
            model: its name; of a cross-validation the best one if not given.
            segmenter: the file of a segmenter that finds the tumour of new slides.

        Returns:
            The folder, its card, and what was left out and why.

        Raises:
            RunError: the folder exists, or the run is not finished.
            FeaturesError: the file is no segmenter.

        Example:
            packed = mil.open_run("run").package("sarcoma-model", model="abmil")
            print(packed.path, packed.notes)
        """
        from mil.answers.card import card_of_run
        from mil.answers.package import write_package
        from mil.answers.run_predictor import predictor_of_run

        predictor = predictor_of_run(self, model)
        card = card_of_run(self, predictor)
        return write_package(predictor, card, Path(out), segmenter=as_path(segmenter))

    def view(
        self, *, slides: StrPath | None = None, regions: StrPath | None = None, port: int = 0
    ) -> "Viewer":
        """Serve the run to a browser on this machine: slides at any zoom, with the score of each tile.

        Args:
            slides: folder with the slides; without it, only thumbnails and tile positions are shown.
            regions: folder with outlines to draw over the slides.
            port: to listen on; 0 chooses a free one.

        Returns:
            The viewer: open its ``address`` while ``serve_forever()`` runs.

        Raises:
            RunError: the run is not finished, or names no slides.
            SlideError: there is no folder of slides, or no slide in it.
            OSError: the port is taken.

        Example:
            with mil.open_run("run").view(slides="slides") as viewer:
                print(viewer.address)  # viewer.serve_forever() serves until it is interrupted
        """
        from features.slides.find import find_slides
        from mil.view.gallery import Gallery
        from mil.view.server import Viewer

        files = find_slides(Path(slides)) if slides is not None else {}
        return Viewer(Gallery(self, files, as_path(regions)), port)


for _method in (
    "evaluate", "compare", "explain", "write_map", "compare_methods", "write_report", "audit",
    "decision_curves", "concepts", "package", "view",
):  # fmt: skip
    setattr(Run, _method, checked(getattr(Run, _method), f"Run.{_method}"))


def open_run(path: StrPath, *, store: StrPath | None = None, cohort: StrPath | None = None) -> Run:
    """Open the folder of a run.

    A bag store or a cohort table that has moved is named once and remembered in the folder.

    Args:
        path: the folder.
        store: where the run's bag store is now.
        cohort: where the run's cohort table is now.

    Raises:
        RunError: there is no run, it was written by a newer version, or ``store`` or ``cohort`` is another.
        CohortError: ``cohort`` cannot be read.

    Example:
        run = mil.open_run("run")
        moved = mil.open_run("run", store="store", cohort="cohort.csv")
    """
    return user_run(stored.open_run(Path(path), store=as_path(store), cohort=as_path(cohort)))


def user_run(run: stored.Run) -> Run:
    """The run with what can be done with it."""
    return Run(run.path, run.info, run.moved)
