"""Sets of classes for new cases."""

import importlib

import numpy as np
import pytest

from mil.answers.classes import ClassReader, GradeReader, KnownCases
from mil.answers.reading import FitAnswer
from mil.tasks.diagnosis import Diagnosis
from mil.tasks.grade import Grade

CLASSES = ("a", "b", "c")
NAMES = tuple(f"p_{name}" for name in CLASSES)


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def answers_of(p):
    """(R, F, C) probabilities of R x F fits."""
    return [
        FitAnswer(repeat, fold, dict(zip(NAMES, row, strict=True)))
        for repeat, folds in enumerate(p)
        for fold, row in enumerate(folds)
    ]


def known_of(truth, p, folds):
    names = tuple(f"case {i}" for i in range(len(truth)))
    return KnownCases(names, np.asarray(truth), np.asarray(folds), np.asarray(p))


def test_the_set_by_a_slow_twin():
    rng = np.random.default_rng(0)
    n, repeats, folds = 21, 2, 3
    truth = rng.integers(0, 3, n)
    p = softmax(rng.normal(size=(repeats, n, 3)) + 1.5 * np.eye(3)[truth])
    of_case = np.stack([rng.permutation(np.arange(n) % folds) for _ in range(repeats)])
    reader = ClassReader(NAMES, CLASSES, known_of(truth, p, of_case))
    assert not reader.by_class
    for _ in range(20):
        new = softmax(rng.normal(size=(repeats, folds, 3)))
        expected = []
        for k in range(3):
            odder = 0
            for i in range(n):
                own = np.mean([p[r, i, truth[i]] for r in range(repeats)])
                here = np.mean([new[r, of_case[r, i], k] for r in range(repeats)])
                odder += own <= here
            if (odder + 1) / (n + 1) > 0.1 + 1e-9:
                expected.append(CLASSES[k])
        assert list(reader.read(answers_of(new)).candidates) == expected


@pytest.mark.parametrize("task", [Diagnosis(), Grade()])
def test_a_promise_calls_the_labels_as_the_task_does(task):
    module, _, name = task.reader.partition(":")
    reader_class = getattr(importlib.import_module(module), name)
    truth = np.repeat([0, 1, 2], 9)
    p = np.full((1, 27, 3), 1 / 3)
    reader = reader_class(NAMES, CLASSES, known_of(truth, p, np.zeros((1, 27), int)))
    assert f"for each {task.group} apart" in reader.promise()
    assert f"one {task.group} has more than half" in reader_class(NAMES, CLASSES, None).promise()


def test_with_nine_cases_of_every_class_each_class_is_judged_by_its_own():
    truth = np.repeat([0, 1, 2], 9)
    p = np.full((1, 27, 3), 0.05)
    p[0, np.arange(27), truth] = np.where(truth == 0, 0.9, 0.4)  # class a is always certain
    reader = ClassReader(NAMES, CLASSES, known_of(truth, p, np.zeros((1, 27), int)))
    assert reader.by_class
    reading = reader.read(answers_of(np.array([[[0.5, 0.45, 0.05]]])))
    assert reading.candidates == ("b",)  # a is less probable than any a was
    assert reader.promise().endswith("27 known ones. This is promised for each class apart.")
    scarce = ClassReader(NAMES, CLASSES, known_of(truth[:-1], p[:, :-1], np.zeros((1, 26), int)))
    assert scarce.promise().endswith(
        "26 known ones. This is promised over all cases together; for each class apart it needs 9 known "
        "cases of each."
    )


def test_the_record_counts_known_cases_read_as_new_ones():
    rng = np.random.default_rng(7)
    n, repeats = 23, 2
    truth = rng.integers(0, 3, n)
    p = softmax(1.5 * rng.normal(size=(repeats, n, 3)) + 2 * np.eye(3)[truth])
    folds = np.stack([rng.permutation(np.arange(n) % 4) for _ in range(repeats)])
    known = known_of(truth, p, folds)
    reader = ClassReader(NAMES, CLASSES, known)
    single = right = best = 0
    sure = []
    for i in range(n):
        others = np.arange(n) != i
        rest = KnownCases(
            tuple(np.array(known.names)[others]), truth[others], folds[:, others], p[:, others]
        )
        new = [
            FitAnswer(r, int(folds[r, i]), dict(zip(NAMES, p[r, i], strict=True)))
            for r in range(repeats)
        ]
        reading = ClassReader(NAMES, CLASSES, rest).read(new)
        single += len(reading.candidates) == 1
        right += reading.candidates == (CLASSES[truth[i]],)
        best += max(reading.values, key=reading.values.get) == NAMES[truth[i]]
        sure.append(max(reading.values.values()))
    assert 0 < right < single < best < n  # so that each number can go wrong
    assert reader.record == (
        f"Each of the 23 known cases, read as a new one by the fits that had not seen it: a single answer "
        f"for {single}, right for {right} of them. The most probable one had a probability of "
        f"{np.mean(sure):.2f} on average, and was the true one for {best} ({best / n:.2f})."
    )
    assert ClassReader.from_json(reader.to_json()).record == reader.record
    assert ClassReader(NAMES, CLASSES, None).record == ""


def test_what_is_predicted_is_in_the_set():
    rng = np.random.default_rng(5)
    truth = np.repeat([0, 1, 2], 9)
    p = softmax(2 * rng.normal(size=(1, 27, 3)) + np.eye(3)[truth])
    folds = (np.arange(27) % 3)[None]
    for kind in (ClassReader, GradeReader):
        reader = kind(NAMES, CLASSES, known_of(truth, p, folds))
        for _ in range(100):
            reading = reader.read(answers_of(softmax(2 * rng.normal(size=(1, 3, 3)))))
            assert reading.predicted in (reading.candidates or CLASSES)


def test_a_known_case_does_not_judge_itself():
    truth = np.zeros(10, int)
    p = np.full((1, 10, 3), [[[0.6, 0.3, 0.1]]])
    p[0, 4] = [0.01, 0.9, 0.09]
    reader = ClassReader(NAMES, CLASSES, known_of(truth, p, np.zeros((1, 10), int)))
    new = answers_of(np.array([[[0.01, 0.9, 0.09]]]))
    assert "a" in reader.read(new).candidates  # case 4 itself is as odd: 2 of 11
    assert "a" in reader.read(new, ["case 0"]).candidates
    assert reader.read(new, ["case 4"]).candidates == ("b",)  # 1 of 10


def test_probabilities_are_cooled_where_fits_are_too_sure():
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 3, 60)
    sure = softmax(6 * rng.normal(size=(1, 60, 3)))  # certain, and right by chance
    reader = ClassReader(NAMES, CLASSES, known_of(truth, sure, np.zeros((1, 60), int)))
    assert reader.temperature > 5
    reading = reader.read(answers_of(np.array([[[0.98, 0.01, 0.01]]])))
    assert max(reading.values.values()) < 0.6
    assert reading.predicted == "a"


def test_without_known_cases_the_majority_of_the_probability_decides():
    reader = ClassReader(NAMES, CLASSES, None)
    assert reader.read(answers_of(np.array([[[0.51, 0.4, 0.09]]]))).candidates == ("a",)
    assert reader.read(answers_of(np.array([[[0.5, 0.5, 0.0]]]))).candidates == ("a", "b")
    assert reader.read(answers_of(np.array([[[0.37, 0.26, 0.37]]]))).candidates == ("a", "c")
    assert "This model was never tested on unseen cases" in reader.promise()


def test_sets_of_grades_have_no_gap_and_the_median_is_predicted():
    reader = GradeReader(NAMES, CLASSES, None)
    reading = reader.read(answers_of(np.array([[[0.45, 0.1, 0.45]]])))
    assert reading.candidates == CLASSES
    assert reading.predicted == "b"


def test_the_reader_comes_back_from_json():
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 3, 12)
    p = softmax(rng.normal(size=(2, 12, 3)))
    reader = ClassReader(NAMES, CLASSES, known_of(truth, p, rng.integers(0, 3, (2, 12))))
    new = answers_of(softmax(rng.normal(size=(2, 3, 3))))
    again = ClassReader.from_json(reader.to_json())
    assert again.read(new) == reader.read(new)
    assert ClassReader.from_json(ClassReader(NAMES, CLASSES, None).to_json()).n_cases == 0


@pytest.mark.parametrize("n", [20, 40])
def test_sets_hold_the_truth_of_nine_cases_in_ten(n):
    """Exchangeable cases: scores of a case depend on the fit, as they do in a cross-validation."""
    rng = np.random.default_rng(n)
    covered = []
    for _ in range(120):
        folds = np.arange(n) % 5
        truth = rng.integers(0, 3, n + 10)
        signal = 1.2 * np.eye(3)[truth] + rng.normal(size=(n + 10, 3))
        fits = 0.5 * rng.normal(size=(5, n + 10, 3))  # each fit errs in its own way
        p = softmax(signal[:n] + fits[folds, np.arange(n)])[None]
        reader = ClassReader(NAMES, CLASSES, known_of(truth[:n], p, folds[None]))
        for new in range(n, n + 10):
            reading = reader.read(answers_of(softmax(signal[new] + fits[:, new])[None]))
            covered.append(CLASSES[truth[new]] in reading.candidates)
    assert 0.88 <= np.mean(covered) <= 0.97
