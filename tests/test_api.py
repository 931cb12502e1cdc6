"""The public interface of ``mil``: its names, what importing them costs, and every example of docs/api.md."""

import ast
import importlib
import inspect
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

import features
import mil
from features.bags.convert import export
from features.volumes.listing import list_series, write_list
from tests.features.making import box_ring, feature, write_geojson, write_tiff
from tests.features.volumes.patients import cohort
from tests.mil.fetch.made_services import running
from tests.mil.segmentation.conftest import TUMOUR, draw_slide

REPO = Path(__file__).parent.parent
PAGE = (REPO / "docs" / "api.md").read_text()
WRITER = runpy.run_path(str(REPO / "docs" / "make_api.py"))
HEAVY = ("torch", "numpy", "pandas", "sklearn", "scipy", "matplotlib", "openslide", "h5py", "timm")
NAMES = [
    "Answer", "Answers", "AppliedSlide", "BackboneEntry", "Bag", "BagError", "Case", "Cohort", "CohortError",
    "ContourSettings", "Diagnosis", "Estimate", "Evaluation", "Explanation", "FeaturesError",
    "FetchError", "FetchedCohort", "FinetuneSettings", "FitError", "FitSettings", "FittedModel", "Fold",
    "Grade", "Head", "HeadOutput", "HeadSettings", "JudgeSettings", "LeakageError", "MilError",
    "Predictions", "PredictionsError", "Protocol", "Recipe", "Run", "RunError", "SarcomilError",
    "SegmentEvaluation", "SegmentSettings", "SegmentedCases", "Slide", "SlideError", "SourceFacts",
    "SplitSettings", "Survival", "Task", "TileScores", "TrainedSegmenter", "TunedCases", "VolumeRecipe",
    "apply_contours", "apply_segmenter", "audit_table", "check_cohort", "check_head", "check_machine",
    "compare", "compare_scales", "contour_volumes", "convert", "cross_validate", "draw_cohort", "evaluate",
    "evaluate_segmenter", "explain", "export", "external_validation", "extract", "extract_volumes",
    "fetch_gdc", "fetch_idc", "fetch_weights", "finetune_backbone", "finetune_per_fold", "fit", "join",
    "learning_curve", "list_backbones", "list_catalogue", "list_methods", "list_models",
    "list_protocols", "list_series", "load_backbone", "load_cohort", "load_model", "load_protocol",
    "make_bag", "nomogram", "open_run", "open_slide", "permute", "predict", "predict_slides",
    "radiomics_bags", "read_annotations", "read_bag", "read_card", "read_predictions", "register_head",
    "run_protocol",
    "segment_per_fold", "split_cases", "train", "train_segmenter", "write_bag",
]  # fmt: skip


def typed_names():
    """name -> "module:attribute", as type checkers see it."""
    tree = ast.parse(Path(mil.__file__).read_text())
    return {
        alias.asname: f"{node.module}:{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module != "mil.version"
        for alias in node.names
        if alias.asname
    }


def test_the_names_are_pinned_and_typed_as_they_are_loaded():
    assert mil.__all__ == sorted([*NAMES, "__version__"])
    assert typed_names() == mil._SOURCES
    assert list(mil._SOURCES) == NAMES
    assert set(mil.__all__) <= set(dir(mil))


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_the_object_of_its_module_and_documented(name):
    module, _, attribute = typed_names()[name].partition(":")
    value = getattr(mil, name)
    plain = (
        inspect.unwrap(value) if inspect.isfunction(value) else value
    )  # arguments are checked around it
    assert plain is getattr(importlib.import_module(module), attribute)
    assert value.__doc__
    assert not getattr(value, "__doc__", "").startswith(
        f"{name}("
    )  # what a dataclass writes itself


def test_functions_are_not_hidden_by_packages_of_their_name():
    packages = {path.name for path in (REPO / "mil").iterdir()} | {
        path.stem for path in (REPO / "mil").glob("*.py")
    }
    assert not packages & set(NAMES)


def test_names_of_features_are_the_same_objects():
    shared = set(mil.__all__) & set(features.__all__) - {"extract"}
    assert len(shared) > 8
    for name in shared:
        assert getattr(mil, name) is getattr(features, name)


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'mil' has no attribute 'crossvalidate'"):
        mil.crossvalidate  # noqa: B018


def processor_seconds(code):
    """Processor time of the quickest of three Python processes, in seconds."""
    measured = []
    for _ in range(3):
        timed = f"import time\n{code}\nprint(time.process_time())"
        done = subprocess.run(
            [sys.executable, "-c", timed], capture_output=True, text=True, check=True
        )
        measured.append(float(done.stdout))
    return min(measured)


def test_import_takes_next_to_no_time():
    spent = processor_seconds("import mil") - processor_seconds("pass")
    assert spent < 0.15


def test_import_loads_only_what_is_used():
    check = f"assert not [name for name in {HEAVY} if name in sys.modules]"
    code = f"""import sys, mil
{check}
mil.FitSettings(), mil.SplitSettings(), mil.Recipe(), mil.SarcomilError, mil.list_models(), mil.list_methods()
{check}
mil.open_run, mil.load_cohort, mil.evaluate, mil.Survival()
assert not [name for name in ("torch", "matplotlib", "timm") if name in sys.modules]
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_page_is_written_from_the_docstrings():
    assert WRITER["write_page"]() == PAGE, "Run make pages."


def test_the_page_has_exactly_the_public_names():
    headings = re.findall(r"^### `mil\.(\w+)`$", PAGE, flags=re.MULTILINE)
    assert sorted(headings) == sorted(mil.__all__)
    assert [name for names in WRITER["GROUPS"].values() for name in names] == headings


def section(name):
    """The part of the page on one public name."""
    return PAGE.partition(f"### `mil.{name}`\n")[2].partition("\n### ")[0]


def test_a_base_class_is_known_by_itself_and_not_by_its_name():
    assert "Derived from" not in section("Evaluation")  # of typing.Protocol
    assert "Derived from `mil.MilError`." in section("CohortError")


def test_inherited_members_of_a_run_are_on_the_page_with_signatures_and_errors():
    lines = section("Run").splitlines()
    assert "- `models: tuple[str, ...]`: Names of the models that were fitted." in lines
    bag = next(line for line in lines if line.startswith("- `bag(slide: str) -> Bag`: "))
    assert bag.endswith("Raises `BagError`, `RunError`.")
    public = {name for name in dir(mil.Run) if not name.startswith("_")}
    assert public == {re.match(r"- `(\w+)", line)[1] for line in lines if line.startswith("- `")}


def test_the_page_imports_nothing_that_is_not_public_and_lists_options():
    assert "import mil." not in PAGE
    assert not re.search(r"^from (mil|features)\.", PAGE, flags=re.MULTILINE)
    assert not re.search(r"`(mil|features)\.[a-z_.]+\.[A-Z]\w+`", PAGE)
    assert "- `hold_out_tiles`: " in section("extract").partition("Options:\n")[2]


def test_every_function_has_an_example():
    for name in NAMES:
        value = getattr(mil, name)
        if not isinstance(value, type):
            assert "Example:" in value.__doc__, name


def write_slides(folder, names, seed):
    """Slides of 128 px with an annotation each."""
    rng = np.random.default_rng(seed)
    (folder / "slides").mkdir(exist_ok=True)
    (folder / "annotations").mkdir(exist_ok=True)
    side, box = 128, [[0, 0], [128, 0], [128, 128], [0, 128], [0, 0]]
    polygon = {"type": "Polygon", "coordinates": [box]}
    drawn = {
        "type": "Feature",
        "geometry": polygon,
        "properties": {"classification": {"name": "Tumor"}},
    }
    for name in names:
        pixels = rng.integers(60, 200, (side, side, 3), dtype=np.uint8)
        per_cm = 1e4 / 0.5  # pixels at 0.5 micrometres each
        tifffile.imwrite(
            folder / "slides" / f"{name}.tiff", pixels, tile=(64, 64), photometric="rgb",
            resolution=(per_cm, per_cm), resolutionunit="CENTIMETER",
        )  # fmt: skip
        (folder / "annotations" / f"{name}.geojson").write_text(json.dumps(drawn))


def write_outlined(folder):
    """Six slides whose tumour is drawn in full, two of them kept for testing."""
    (folder / "outlined").mkdir()
    lines = ["case,slide,label,annotated,split"]
    for number in range(1, 7):
        name = f"case-{number}"
        write_tiff(folder / "outlined" / f"{name}.tiff", [draw_slide(number)], mpp=2.5)
        ring = box_ring(TUMOUR[0], 64, TUMOUR[1], 256)
        write_geojson(folder / "outlined" / f"{name}.geojson", feature(ring))
        lines.append(
            f"{name},{name},{'LMS' if number % 2 else 'SS'},full,{'test' if number > 4 else ''}"
        )
    (folder / "outlined.csv").write_text("\n".join(lines) + "\n")


def write_table(path, cases):
    rows = [
        f"{case},{case}-s1,{'LMS' if i % 2 else 'SS'},{i % 3},{100 + 10 * i},{int(i % 4 > 0)},{1 + i % 3}"
        for i, case in enumerate(cases)
    ]
    path.write_text("\n".join(["case,slide,label,site,time,event,grade", *rows]) + "\n")


def write_radiomics(path):
    rng = np.random.default_rng(0)
    rows = [f"case-{i},{','.join(f'{x:.3f}' for x in rng.normal(size=3))}" for i in range(8)]
    names = ("original_firstorder_Mean", "original_glcm_Contrast", "original_shape_Sphericity")
    path.write_text("\n".join([",".join(("case", *names)), *rows]) + "\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A study of ten cases, four external ones, and features of another tool."""
    folder = tmp_path_factory.mktemp("study")
    cases = [f"case-{i:02d}" for i in range(1, 11)]
    external = [f"case-{i}" for i in range(21, 25)]
    write_slides(folder, [f"{case}-s1" for case in [*cases, *external]], seed=0)
    write_table(folder / "cohort.csv", cases)
    write_table(folder / "external.csv", external)
    recipe = mil.Recipe(backbone="resnet18", weights="random", mpp=0.5, tile=64)
    mil.extract(
        folder / "external.csv",
        out=folder / "external-store",
        recipe=recipe,
        slides=folder / "slides",
        annotations=folder / "annotations",
    )
    export(folder / "external-store", folder / "clam", "clam")
    write_outlined(folder)
    patients = cohort(folder / "patients", 2, shape=(8, 32, 32))
    write_list(folder / "volumes.csv", list_series(patients))
    write_radiomics(folder / "radiomics.csv")
    return folder


def test_the_examples_of_the_page_run_in_their_order(folder, monkeypatch):
    monkeypatch.chdir(folder)
    names = {"mil": mil}
    with running() as network:  # answers as the Genomic Data Commons do
        monkeypatch.setenv("SARCOMIL_GDC_SERVER", network.address)
        for code in re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL):
            exec(compile(code, code, "exec"), names)
    assert (folder / "report.html").stat().st_size > 10_000
    assert (folder / "explained" / "case-01-s1-abmil-evidence.csv").is_file()
    assert json.loads((folder / "run" / "run.json").read_text())["complete"]


SCRIPT = """
import torch, mil

class Mine(mil.Head):
    def __init__(self, settings):
        super().__init__(settings)
        self.classify = torch.nn.Linear(settings.dim, settings.n_outputs)

    def pool(self, features, mask, coords):
        scores = torch.zeros_like(mask, dtype=features.dtype).masked_fill(~mask, -torch.inf).unsqueeze(1)
        attention = scores.softmax(dim=-1)
        embedding = (attention @ features).squeeze(1)
        logits = self.classify(embedding)
        return mil.HeadOutput(logits=logits, attention=attention, scores=scores, embedding=embedding)

cohort = mil.load_cohort("external.csv", "external-store")
quick = mil.FitSettings(epochs=2, seeds=1)
for workers in (1, 2):
    run = mil.cross_validate(
        cohort, [Mine, "majority"], folds=2, out=f"workers-{workers}", workers=workers, settings=quick
    )
    print(run.models, run.evaluate()["Mine"].metrics["accuracy"].value)
"""


def test_a_head_of_a_script_works_in_other_processes(folder, script):
    one, two = script(SCRIPT, cwd=folder).splitlines()
    assert one == two
    assert one.startswith("('Mine', 'majority')")
    first, second = (folder / f"workers-{n}" / "predictions.csv" for n in (1, 2))
    assert first.read_text() == second.read_text()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("mil.cross_validate(cohort, 'abmill', out='r')", "Did you mean 'abmil'"),
        ("mil.cross_validate(cohort, ['abmil', 'abmil'], out='r')", "named twice"),
        ("mil.cross_validate(cohort, [], out='r')", "models is empty"),
        ("mil.learning_curve(cohort, (), out='r')", "models is empty"),
        ("mil.permute('nowhere', 1, 'r')", "there is no such folder"),
        ("mil.external_validation('nowhere', 'abmil', 'external.csv', 'store')", "there is no such folder"),
        ("mil.cross_validate(cohort, ['mean'], folds=50, out='r')", "50 folds need"),
        ("mil.cross_validate(cohort, ['mean'], folds=2, repeats=0, out='r')", "repeats must be at least 1"),
        ("mil.cross_validate(cohort, [int], out='r')", "subclass of mil.heads.head.Head"),
        ("mil.fit(cohort, 'abmill')", "Did you mean 'abmil'"),
        ("mil.fit(cohort, settings=mil.FitSettings(epochs=0))", "epochs must be at least 1"),
        ("mil.open_run('nowhere')", "there is no such folder"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_a_remedy(folder, monkeypatch, call, message):
    monkeypatch.chdir(folder)
    cohort = mil.load_cohort("external.csv", "external-store")
    with pytest.raises(mil.SarcomilError, match=message):
        eval(call, {"mil": mil, "cohort": cohort})
    assert not (folder / "r").exists()
