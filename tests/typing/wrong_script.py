"""A user's mistakes, each of which mypy finds: the error it reports stands in the comment."""

import mil

cohort = mil.load_cohort("cohort.csv")  # [call-arg]
cohort = mil.load_cohort("cohort.csv", "store", task=3)  # [arg-type]
run = mil.cross_validate(cohort, [int], out="run")  # [list-item]
run = mil.cross_validate(cohort, fold=5, out="run")  # [call-arg]
run.evaluate()[0]  # [index]
run.evaluate()["abmil"].auc  # [attr-defined]
run.evaluate()["abmil"].metrics["auc"].value + 1  # [operator]
mil.crossvalidate  # [attr-defined]
mil.load_model("abmil.safetensors").predict("store/case-01-s1.h5")  # [arg-type]
