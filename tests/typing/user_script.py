"""A user's script, checked by mypy under strict and never run: types are exact, and no expression is Any."""

# mypy: disallow-any-expr
from collections.abc import Sequence
from pathlib import Path
from typing import assert_type

import torch
from torch import Tensor

import mil
from features.extraction.run import Extraction
from mil.evaluation.judge import Comparison, ModelEvaluation, PairComparison

recipe = mil.Recipe(backbone="resnet18", mpp=0.5)
store = mil.extract(
    "cohort.csv", slides="slides", annotations="annotations", out="store", recipe=recipe
)
assert_type(store, Extraction)

cohort = mil.load_cohort("cohort.csv", store, task=mil.Survival(time="time", event="event"))
assert_type(cohort, mil.Cohort)
assert_type(cohort.cases, tuple[mil.Case, ...])
assert_type(cohort.task, mil.Task)
folds = mil.split_cases(
    cohort.names, cohort.labels, ["" for _ in cohort.cases], mil.SplitSettings()
)
assert_type(folds, tuple[mil.Fold, ...])


class MeanOfTiles(mil.Head):
    """A head of one's own."""

    def __init__(self, settings: mil.HeadSettings) -> None:
        super().__init__(settings)
        self.classify = torch.nn.Linear(settings.dim, settings.n_outputs)

    def pool(self, features: Tensor, mask: Tensor, coords: Tensor | None) -> mil.HeadOutput:
        """The mean of the tiles, classified."""
        scores = mask.float().log().unsqueeze(1)
        attention = scores.softmax(dim=-1)
        embedding = (attention @ features).squeeze(1)
        logits = torch.nn.functional.linear(embedding, self.classify.weight, self.classify.bias)
        return mil.HeadOutput(
            logits=logits, attention=attention, scores=scores, embedding=embedding
        )


mil.check_head(MeanOfTiles)
mil.register_head("mean-of-tiles", MeanOfTiles)
assert_type(mil.list_models(), tuple[str, ...])

settings = mil.FitSettings(epochs=10, seeds=1)
run = mil.cross_validate(cohort, ["majority", MeanOfTiles], folds=5, out="run", settings=settings)
assert_type(run, mil.Run)
assert_type(mil.open_run("run", store=Path("store")), mil.Run)
assert_type(run.models, tuple[str, ...])
assert_type(run.predictions(), mil.Predictions)
assert_type(run.predictions().models, tuple[str, ...])

evaluation = run.evaluate(mil.JudgeSettings(coverage=0.8))
assert_type(evaluation, mil.Evaluation)
assert_type(evaluation["abmil"], ModelEvaluation)
assert_type(evaluation["abmil"].metrics["auc"], mil.Estimate)
assert_type(evaluation["abmil"].metrics["auc"].low, float | None)
assert_type(evaluation.models[0].model, str)
assert_type(mil.evaluate(mil.read_predictions("run/predictions.csv")), mil.Evaluation)

comparison = run.compare()
assert_type(comparison, Comparison)
assert_type(comparison.pairs, Sequence[PairComparison])
assert_type(comparison.pairs[0].first, str)
assert_type(comparison.pairs[0].p, float | None)
assert_type(comparison.pairs[0].p_holm, float | None)

explanation = run.explain("case-01-s1", method="evidence")
assert_type(explanation, mil.Explanation)
assert_type(explanation.scores, mil.TileScores)
assert_type(explanation.save("explained"), tuple[Path, ...])
assert_type(run.write_report("report.html"), Path)

model = mil.fit(cohort, "abmil")
assert_type(model, mil.FittedModel)
model.save("abmil.safetensors")
bag = mil.read_bag("store/case-01-s1.h5")
assert_type(bag, mil.Bag)
assert_type(mil.load_model("abmil.safetensors").predict(bag), dict[str, float])
assert_type(mil.predict(model, bag), dict[str, float])
assert_type(mil.explain(model, bag, method="attention"), mil.TileScores)
for method in mil.list_methods():
    assert_type(method.name, str)

for test in mil.permute(run, 20, "permuted"):
    assert_type(test.leaks, bool)
assert_type(mil.permute("run", 20, Path("permuted"))[0].p_value, float | None)
validation = mil.external_validation(Path("run"), "abmil", "external.csv", "external-store")
assert_type(validation.evaluation["abmil"].metrics["accuracy"].value, float | None)

with mil.open_slide("slides/case-01-s1.tiff") as slide:
    assert_type(slide, mil.Slide)
    assert_type(slide.mpp, tuple[float, float])
