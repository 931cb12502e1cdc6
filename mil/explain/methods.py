"""The methods by name; all answer the same question with the same kind of scores."""

from collections.abc import Callable, Mapping

from mil.explain.attention import attention_scores
from mil.explain.evidence import evidence_scores
from mil.explain.gradients import gradient_scores, integrated_gradients_scores
from mil.explain.regions import ablation_scores, shapley_scores
from mil.explain.scores import TileScores
from mil.explain.single_tile import single_tile_scores
from mil.explain.target import ExplanationTarget

METHODS: Mapping[str, Callable[[ExplanationTarget], TileScores]] = {
    "attention": lambda question: attention_scores(question.fitted, question.bag, question.target),
    "evidence": evidence_scores,
    "single-tile": single_tile_scores,
    "integrated-gradients": integrated_gradients_scores,
    "gradient": gradient_scores,
    "ablation": ablation_scores,
    "shapley": shapley_scores,
}
