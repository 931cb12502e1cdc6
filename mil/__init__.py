"""Where labels enter: learn the case's subtype from bags, judge it honestly, explain it.

The names below are the public interface; each is loaded when it is first used, so that importing the package
costs nothing::

    import mil

    cohort = mil.load_cohort("cohort.csv", "store")
    run = mil.cross_validate(cohort, ["majority", "abmil"], out="run")
    run.evaluate()["abmil"].metrics["auc"]
    run.write_report("report.html")
"""

import importlib
import inspect
from typing import TYPE_CHECKING

from mil.version import __version__

if TYPE_CHECKING:
    from features.backbones.catalogue import fetch_weights as fetch_weights
    from features.backbones.catalogue import list_catalogue as list_catalogue
    from features.backbones.registry import load_backbone as load_backbone
    from features.backbones.table import BackboneEntry as BackboneEntry
    from features.backbones.table import list_backbones as list_backbones
    from features.bags.bag import Bag as Bag
    from features.bags.bag import read_bag as read_bag
    from features.bags.bag import write_bag as write_bag
    from features.bags.convert import convert as convert
    from features.bags.convert import export as export
    from features.bags.foreign_readers import SourceFacts as SourceFacts
    from features.bags.interchange import make_bag as make_bag
    from features.bags.join import join as join
    from features.errors import BagError as BagError
    from features.errors import FeaturesError as FeaturesError
    from features.errors import SarcomilError as SarcomilError
    from features.errors import SlideError as SlideError
    from features.recipe import Recipe as Recipe
    from features.regions.annotations import read_annotations as read_annotations
    from features.slides.slide import Slide as Slide
    from features.slides.slide import open_slide as open_slide
    from features.volumes.recipe import VolumeRecipe as VolumeRecipe
    from mil.answers.answer import Answer as Answer
    from mil.answers.predict import Answers as Answers
    from mil.api.contouring import apply_contours as apply_contours
    from mil.api.contouring import contour_volumes as contour_volumes
    from mil.api.judging import audit_table as audit_table
    from mil.api.judging import external_validation as external_validation
    from mil.api.judging import nomogram as nomogram
    from mil.api.judging import permute as permute
    from mil.api.judging import read_predictions as read_predictions
    from mil.api.learning import cross_validate as cross_validate
    from mil.api.learning import fit as fit
    from mil.api.learning import learning_curve as learning_curve
    from mil.api.learning import train as train
    from mil.api.preparing import check_cohort as check_cohort
    from mil.api.preparing import finetune_backbone as finetune_backbone
    from mil.api.preparing import finetune_per_fold as finetune_per_fold
    from mil.api.preparing import list_series as list_series
    from mil.api.preparing import segment_per_fold as segment_per_fold
    from mil.api.run import Run as Run
    from mil.api.run import open_run as open_run
    from mil.api.slides import explain as explain
    from mil.api.slides import predict_slides as predict_slides
    from mil.api.slides import read_card as read_card
    from mil.api.start import check_machine as check_machine
    from mil.api.start import draw_cohort as draw_cohort
    from mil.api.studies import compare_scales as compare_scales
    from mil.api.studies import list_protocols as list_protocols
    from mil.api.studies import run_protocol as run_protocol
    from mil.contouring.settings import ContourSettings as ContourSettings
    from mil.data.case import Case as Case
    from mil.data.cohort import Cohort as Cohort
    from mil.data.cohort import load_cohort as load_cohort
    from mil.data.jobs import extract as extract
    from mil.data.splits import Fold as Fold
    from mil.data.splits import split_cases as split_cases
    from mil.data.volumes import extract_volumes as extract_volumes
    from mil.errors import CohortError as CohortError
    from mil.errors import FetchError as FetchError
    from mil.errors import FitError as FitError
    from mil.errors import LeakageError as LeakageError
    from mil.errors import MilError as MilError
    from mil.errors import PredictionsError as PredictionsError
    from mil.errors import RunError as RunError
    from mil.evaluation.intervals import Estimate as Estimate
    from mil.evaluation.judge import Evaluation as Evaluation
    from mil.evaluation.judge import compare as compare
    from mil.evaluation.judge import evaluate as evaluate
    from mil.evaluation.predictions import Predictions as Predictions
    from mil.explanation.methods import list_methods as list_methods
    from mil.explanation.scores import TileScores as TileScores
    from mil.explanation.write import Explanation as Explanation
    from mil.fetch.gdc_cohort import fetch_gdc as fetch_gdc
    from mil.fetch.idc_cohort import fetch_idc as fetch_idc
    from mil.fetch.result import FetchedCohort as FetchedCohort
    from mil.finetune.cross_validation import TunedCases as TunedCases
    from mil.finetune.settings import FinetuneSettings as FinetuneSettings
    from mil.heads.head import Head as Head
    from mil.heads.head import HeadOutput as HeadOutput
    from mil.heads.head import HeadSettings as HeadSettings
    from mil.heads.laws import check_head as check_head
    from mil.heads.registry import model_names as list_models
    from mil.heads.registry import register_head as register_head
    from mil.learning.fitted import FittedModel as FittedModel
    from mil.learning.fitted import load_model as load_model
    from mil.learning.fitted import predict as predict
    from mil.protocols.protocol import Protocol as Protocol
    from mil.protocols.protocol import load_protocol as load_protocol
    from mil.radiomics.bags import radiomics_bags as radiomics_bags
    from mil.segmentation.application import AppliedSlide as AppliedSlide
    from mil.segmentation.cases import SegmentedCases as SegmentedCases
    from mil.segmentation.evaluation import SegmentEvaluation as SegmentEvaluation
    from mil.segmentation.run import TrainedSegmenter as TrainedSegmenter
    from mil.segmentation.settings import SegmentSettings as SegmentSettings
    from mil.segmentation.study import apply_segmenter as apply_segmenter
    from mil.segmentation.study import evaluate_segmenter as evaluate_segmenter
    from mil.segmentation.study import train_segmenter as train_segmenter
    from mil.settings import FitSettings as FitSettings
    from mil.settings import JudgeSettings as JudgeSettings
    from mil.settings import SplitSettings as SplitSettings
    from mil.tasks.diagnosis import Diagnosis as Diagnosis
    from mil.tasks.grade import Grade as Grade
    from mil.tasks.survival import Survival as Survival
    from mil.tasks.task import Task as Task

__all__ = [
    "Answer",
    "Answers",
    "AppliedSlide",
    "BackboneEntry",
    "Bag",
    "BagError",
    "Case",
    "Cohort",
    "CohortError",
    "ContourSettings",
    "Diagnosis",
    "Estimate",
    "Evaluation",
    "Explanation",
    "FeaturesError",
    "FetchError",
    "FetchedCohort",
    "FinetuneSettings",
    "FitError",
    "FitSettings",
    "FittedModel",
    "Fold",
    "Grade",
    "Head",
    "HeadOutput",
    "HeadSettings",
    "JudgeSettings",
    "LeakageError",
    "MilError",
    "Predictions",
    "PredictionsError",
    "Protocol",
    "Recipe",
    "Run",
    "RunError",
    "SarcomilError",
    "SegmentEvaluation",
    "SegmentSettings",
    "SegmentedCases",
    "Slide",
    "SlideError",
    "SourceFacts",
    "SplitSettings",
    "Survival",
    "Task",
    "TileScores",
    "TrainedSegmenter",
    "TunedCases",
    "VolumeRecipe",
    "__version__",
    "apply_contours",
    "apply_segmenter",
    "audit_table",
    "check_cohort",
    "check_head",
    "check_machine",
    "compare",
    "compare_scales",
    "contour_volumes",
    "convert",
    "cross_validate",
    "draw_cohort",
    "evaluate",
    "evaluate_segmenter",
    "explain",
    "export",
    "external_validation",
    "extract",
    "extract_volumes",
    "fetch_gdc",
    "fetch_idc",
    "fetch_weights",
    "finetune_backbone",
    "finetune_per_fold",
    "fit",
    "join",
    "learning_curve",
    "list_backbones",
    "list_catalogue",
    "list_methods",
    "list_models",
    "list_protocols",
    "list_series",
    "load_backbone",
    "load_cohort",
    "load_model",
    "load_protocol",
    "make_bag",
    "nomogram",
    "open_run",
    "open_slide",
    "permute",
    "predict",
    "predict_slides",
    "radiomics_bags",
    "read_annotations",
    "read_bag",
    "read_card",
    "read_predictions",
    "register_head",
    "run_protocol",
    "segment_per_fold",
    "split_cases",
    "train",
    "train_segmenter",
    "write_bag",
]

_SOURCES = {
    "Answer": "mil.answers.answer:Answer",
    "Answers": "mil.answers.predict:Answers",
    "AppliedSlide": "mil.segmentation.application:AppliedSlide",
    "BackboneEntry": "features.backbones.table:BackboneEntry",
    "Bag": "features.bags.bag:Bag",
    "BagError": "features.errors:BagError",
    "Case": "mil.data.case:Case",
    "Cohort": "mil.data.cohort:Cohort",
    "CohortError": "mil.errors:CohortError",
    "ContourSettings": "mil.contouring.settings:ContourSettings",
    "Diagnosis": "mil.tasks.diagnosis:Diagnosis",
    "Estimate": "mil.evaluation.intervals:Estimate",
    "Evaluation": "mil.evaluation.judge:Evaluation",
    "Explanation": "mil.explanation.write:Explanation",
    "FeaturesError": "features.errors:FeaturesError",
    "FetchError": "mil.errors:FetchError",
    "FetchedCohort": "mil.fetch.result:FetchedCohort",
    "FinetuneSettings": "mil.finetune.settings:FinetuneSettings",
    "FitError": "mil.errors:FitError",
    "FitSettings": "mil.settings:FitSettings",
    "FittedModel": "mil.learning.fitted:FittedModel",
    "Fold": "mil.data.splits:Fold",
    "Grade": "mil.tasks.grade:Grade",
    "Head": "mil.heads.head:Head",
    "HeadOutput": "mil.heads.head:HeadOutput",
    "HeadSettings": "mil.heads.head:HeadSettings",
    "JudgeSettings": "mil.settings:JudgeSettings",
    "LeakageError": "mil.errors:LeakageError",
    "MilError": "mil.errors:MilError",
    "Predictions": "mil.evaluation.predictions:Predictions",
    "PredictionsError": "mil.errors:PredictionsError",
    "Protocol": "mil.protocols.protocol:Protocol",
    "Recipe": "features.recipe:Recipe",
    "Run": "mil.api.run:Run",
    "RunError": "mil.errors:RunError",
    "SarcomilError": "features.errors:SarcomilError",
    "SegmentEvaluation": "mil.segmentation.evaluation:SegmentEvaluation",
    "SegmentSettings": "mil.segmentation.settings:SegmentSettings",
    "SegmentedCases": "mil.segmentation.cases:SegmentedCases",
    "Slide": "features.slides.slide:Slide",
    "SlideError": "features.errors:SlideError",
    "SourceFacts": "features.bags.foreign_readers:SourceFacts",
    "SplitSettings": "mil.settings:SplitSettings",
    "Survival": "mil.tasks.survival:Survival",
    "Task": "mil.tasks.task:Task",
    "TileScores": "mil.explanation.scores:TileScores",
    "TrainedSegmenter": "mil.segmentation.run:TrainedSegmenter",
    "TunedCases": "mil.finetune.cross_validation:TunedCases",
    "VolumeRecipe": "features.volumes.recipe:VolumeRecipe",
    "apply_contours": "mil.api.contouring:apply_contours",
    "apply_segmenter": "mil.segmentation.study:apply_segmenter",
    "audit_table": "mil.api.judging:audit_table",
    "check_cohort": "mil.api.preparing:check_cohort",
    "check_head": "mil.heads.laws:check_head",
    "check_machine": "mil.api.start:check_machine",
    "compare": "mil.evaluation.judge:compare",
    "compare_scales": "mil.api.studies:compare_scales",
    "contour_volumes": "mil.api.contouring:contour_volumes",
    "convert": "features.bags.convert:convert",
    "cross_validate": "mil.api.learning:cross_validate",
    "draw_cohort": "mil.api.start:draw_cohort",
    "evaluate": "mil.evaluation.judge:evaluate",
    "evaluate_segmenter": "mil.segmentation.study:evaluate_segmenter",
    "explain": "mil.api.slides:explain",
    "export": "features.bags.convert:export",
    "external_validation": "mil.api.judging:external_validation",
    "extract": "mil.data.jobs:extract",
    "extract_volumes": "mil.data.volumes:extract_volumes",
    "fetch_gdc": "mil.fetch.gdc_cohort:fetch_gdc",
    "fetch_idc": "mil.fetch.idc_cohort:fetch_idc",
    "fetch_weights": "features.backbones.catalogue:fetch_weights",
    "finetune_backbone": "mil.api.preparing:finetune_backbone",
    "finetune_per_fold": "mil.api.preparing:finetune_per_fold",
    "fit": "mil.api.learning:fit",
    "join": "features.bags.join:join",
    "learning_curve": "mil.api.learning:learning_curve",
    "list_backbones": "features.backbones.table:list_backbones",
    "list_catalogue": "features.backbones.catalogue:list_catalogue",
    "list_methods": "mil.explanation.methods:list_methods",
    "list_models": "mil.heads.registry:model_names",
    "list_protocols": "mil.api.studies:list_protocols",
    "list_series": "mil.api.preparing:list_series",
    "load_backbone": "features.backbones.registry:load_backbone",
    "load_cohort": "mil.data.cohort:load_cohort",
    "load_model": "mil.learning.fitted:load_model",
    "load_protocol": "mil.protocols.protocol:load_protocol",
    "make_bag": "features.bags.interchange:make_bag",
    "nomogram": "mil.api.judging:nomogram",
    "open_run": "mil.api.run:open_run",
    "open_slide": "features.slides.slide:open_slide",
    "permute": "mil.api.judging:permute",
    "predict": "mil.learning.fitted:predict",
    "predict_slides": "mil.api.slides:predict_slides",
    "radiomics_bags": "mil.radiomics.bags:radiomics_bags",
    "read_annotations": "features.regions.annotations:read_annotations",
    "read_bag": "features.bags.bag:read_bag",
    "read_card": "mil.api.slides:read_card",
    "read_predictions": "mil.api.judging:read_predictions",
    "register_head": "mil.heads.registry:register_head",
    "run_protocol": "mil.api.studies:run_protocol",
    "segment_per_fold": "mil.api.preparing:segment_per_fold",
    "split_cases": "mil.data.splits:split_cases",
    "train": "mil.api.learning:train",
    "train_segmenter": "mil.segmentation.study:train_segmenter",
    "write_bag": "features.bags.bag:write_bag",
}

if not TYPE_CHECKING:  # type checkers see the imports above, and no other name

    def __getattr__(name):
        """Load a public name on its first use."""
        if name not in _SOURCES:
            raise AttributeError(f"module 'mil' has no attribute {name!r}")
        module, _, attribute = _SOURCES[name].partition(":")
        value = getattr(importlib.import_module(module), attribute)
        if inspect.isfunction(value):
            value = importlib.import_module("features.arguments").checked(value, name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
