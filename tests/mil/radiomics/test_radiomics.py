"""Radiomics as bags: what is a feature, what two readings agree on, and that no outcome is learnt from."""

import csv

import numpy as np
import pytest

from features.bags.bag import read_bag
from features.columns.radiomics import best_tool, feature_columns
from features.errors import BagError
from mil.errors import CohortError
from mil.radiomics.agreement import intraclass_correlation
from mil.radiomics.bags import radiomics_bags
from mil.radiomics.table import read_feature_table

MEAN, NOISE, SHIFTED = (
    "original_firstorder_Mean", "wavelet-LLH_glcm_Contrast", "log-sigma-2-0-mm-3D_ngtdm_Busyness",
)  # fmt: skip
# Shrout and Fleiss 1979, table 2: six targets by four judges.
JUDGED = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float
)


def write(path, rows, header):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def test_both_forms_are_those_of_shrout_and_fleiss():
    agreement = intraclass_correlation(JUDGED[:, :, None])
    assert round(float(agreement.icc2[0]), 2) == 0.29
    assert round(float(agreement.icc3[0]), 2) == 0.71


def test_correlations_are_taken_feature_by_feature_and_flat_ones_are_undefined():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(9, 3, 4))
    values[..., 3] = 5
    both = intraclass_correlation(values)
    for j in range(3):
        alone = intraclass_correlation(values[..., [j]])
        assert alone.icc2[0] == pytest.approx(both.icc2[j], abs=1e-12)
        assert alone.icc3[0] == pytest.approx(both.icc3[j], abs=1e-12)
    assert np.isnan(both.icc2[3])
    # An offset of a reader is disagreement to one form only; scale of all readings is none to either.
    shifted = values[..., :3] + np.array([0, 0, 4])[None, :, None]
    assert np.allclose(intraclass_correlation(shifted).icc3, both.icc3[:3])
    assert (intraclass_correlation(shifted).icc2 < both.icc2[:3]).all()
    assert np.allclose(intraclass_correlation(7 * values[..., :3]).icc2, both.icc2[:3])


@pytest.fixture
def readings(tmp_path):
    """Twenty cases, of whom twelve were drawn twice: one steady feature, one of noise, one with an offset."""
    rng = np.random.default_rng(1)
    header = ["patient_id", MEAN, NOISE, SHIFTED, "diagnostics_Versions_PyRadiomics", "mets", "age"]
    x = rng.normal(size=(20, 3))
    rows = [[f"P{i:02d}", *x[i], "v3.0.1", i % 2, 40 + i] for i in range(20)]
    first = write(tmp_path / "radiomics.csv", rows, header)
    again = x + np.column_stack([rng.normal(0, 0.1, 20), rng.normal(0, 2, 20), np.full(20, 3.0)])
    rows = [[f"p{i:02d}", *again[i], "v3.0.1", "", ""] for i in rng.permutation(20)[:12]]
    return first, write(tmp_path / "second.csv", rows, header), x


def test_what_two_readings_disagree_on_is_left_out_and_listed(readings, tmp_path):
    first, second, x = readings
    done = radiomics_bags(first, tmp_path / "store", repeat=second)
    assert done.names == (MEAN,)
    assert done.repeated == 12
    assert set(done.left_out) == {NOISE, SHIFTED}
    bag = read_bag(tmp_path / "store" / "P03.h5")
    assert np.asarray(bag.features).tolist() == [[np.float32(x[3, 0])]]
    assert bag.case == bag.slide == "P03"
    assert bag.recipe["settings"] == {"diagnostics_Versions_PyRadiomics": "v3.0.1"}
    rows = list(csv.DictReader((tmp_path / "store" / "features.csv").read_text().splitlines()))
    assert [(row["feature"], row["used"]) for row in rows] == [
        (MEAN, "yes"), (NOISE, "no"), (SHIFTED, "no"),
    ]  # fmt: skip
    consistent = radiomics_bags(first, tmp_path / "other", repeat=second, icc_form="ICC3")
    assert consistent.names == (MEAN, SHIFTED)
    loose = radiomics_bags(first, tmp_path / "loose", repeat=second, icc=0)
    assert MEAN in loose.names


def test_outcomes_and_further_columns_are_never_features(readings, tmp_path):
    first, _, _ = readings
    done = radiomics_bags(first, tmp_path / "store")
    assert done.names == (MEAN, NOISE, SHIFTED)
    assert done.others == ("mets", "age")


def test_a_table_of_unknown_names_is_refused_until_features_are_named(tmp_path):
    table = write(tmp_path / "t.csv", [["a", 1, 2, 0], ["b", 3, 1, 1], ["c", 2, 2, 1]],
                  ["case", "tex1", "tex2", "METS"])  # fmt: skip
    with pytest.raises(
        CohortError, match="no column is named like a feature of pyradiomics, LIFEx, MIRP or Nyxus"
    ):
        read_feature_table(table)
    assert read_feature_table(table, ("tex*",)).names == ("tex1", "tex2")
    with pytest.raises(CohortError, match=r"no column is named like foo\*"):
        read_feature_table(table, ("foo*",))


NAMES = {
    "pyradiomics": [
        "original_shape_Sphericity", "wavelet-HHH_gldm_SmallDependenceEmphasis", "lbp-3D-k_glrlm_RunEntropy",
        "CT_original_firstorder_90Percentile", "log-sigma-3-5-mm-3D_glszm_ZonePercentage",
        "wavelet.LH_shape2D_MeshSurface", "squareroot_ngtdm_Strength",
    ],
    "mirp": [
        "morph_volume", "morph_vol_dens_conv_hull", "stat_mean", "ih_max_grad_g_fbn_n32", "ivh_diff_i10_i90",
        "cm_contrast_d1_3d_v_mrg_fbs_w25.0", "ngl_lde_d1_a0.0_3d", "szm_zsnu_norm_2.5d_fbn_n16",
        "wavelet_coif1_level_1_hhl_stat_p90", "T1_stat_qcod", "loc_peak_glob", "rlm_r_perc_3d_avg",
    ],
    "nyxus": [
        "MEAN", "GLCM_ASM_0", "3GLRLM_SRE", "ZERNIKE2D_Z0", "P10", "3P99", "3GLCM_CLUPROM_AVE",
        "3AREA_2_VOLUME", "ROBUST_MEAN_ABSOLUTE_DEVIATION", "GABOR_3", "3MAJOR_AXIS_LEN", "NGTDM_BUSYNESS",
        "STAT_MARTIN_DIAM_MODE", "MAXCHORDS_MIN_ANG", "ALLCHORDS_STDDEV", "SPAT_MOMENT_12", "HU_M6",
        "NORM_CENTRAL_MOMENT_21", "WEIGHTED_HU_M3", "WEIGHTED_CENTROID_Y", "IMOM_WNCM_30", "THICKNESS",
        "GEODETIC_LENGTH", "EXTREMA_P8_X", "POLYGONALITY_AVE", "3RANGE", "GLCM_HOM1_45",
    ],
    "lifex": [
        "MORPHOLOGICAL_Volume(IBSI:RNU0)[mL]", "INTENSITY-BASED_MaximumIntensity(IBSI:84IY)[SUVbw]",
        "GLCM_JointEntropyLog2(IBSI:TU9B)", "INTENSITY-HISTOGRAM-RIM_RIM-IntensityMax(IBSI:No)[Intensity]",
        "CONVENTIONAL_SUVbwmax", "DISCRETIZED_HISTO_Entropy_log10", "SHAPE_Sphericity[onlyFor3DROI]",
        "GLZLM_LZLGE", "GLRLM_SRE", "PET_GLCM_Contrast[=Variance]", "CONVENTIONAL_TLG(mL)[onlyForPETorNM]",
        "LOCAL_INTENSITY_BASED_GlobalIntensityPeak(IBSI:0F91)[Intensity]",
    ],
}  # fmt: skip
NO_FEATURES = [
    "loc_recurrence", "LABEL", "OS_MONTHS", "original_label", "logarithm", "status", "P16", "P53", "P63_ihc",
    "vital_stat_dead", "met_stat_m1", "vital_stat", "stat", "cm_size", "tumour_morph_type", "ih_score",
    "target_log_glcm_x", "logits_glcm_Mean", "original_glcm", "MIN_FOLLOW_UP", "MAXIMUM", "P100", "GRADE",
    "stat_alive", "loc_peak_date", "ivh_stage", "AREA_CODE", "DEATH", "VITAL_STATUS", "RANGE_OF_MOTION",
    "PT_MIN", "T1_RANGE", "GLCM_CLASS", "GLSZM_A1", "label_wavelet-HHL_glcm_Imc2", "original_shape_Grade",
    "outcome_original_firstorder_Mean", "os_original_glcm_Id", "GLRLM_Stage", "SHAPE_Group", "MRI_P75",
    "log_outcome_stat_mean", "wavelet_vital_stat_max", "MORPHOLOGICAL_Grade", "ROI_LABEL", "HU_M8",
]  # fmt: skip


@pytest.mark.parametrize("tool", NAMES)
def test_features_are_recognised_by_the_names_of_their_tools(tmp_path, tool):
    names = NAMES[tool]
    rows = [[f"c{i}", *range(len(names)), *range(len(NO_FEATURES))] for i in range(3)]
    table = read_feature_table(write(tmp_path / "t.csv", rows, ["case", *names, *NO_FEATURES]))
    assert table.tool == tool
    assert list(table.names) == names
    with pytest.raises(CohortError, match="no column is named like a feature"):
        read_feature_table(write(tmp_path / "u.csv", [["a", *NO_FEATURES]], ["case", *NO_FEATURES]))


@pytest.mark.parametrize(
    ("columns", "tool", "taken"),
    [
        # A word counts beside whole names of the tool, behind a modality where they stand behind it too.
        (["ADC_GLRLM_RP", "ADC_MAX", "PT_MAX", "T2_MAX"], "nyxus", ["ADC_GLRLM_RP", "ADC_MAX"]),
        (["MIN", "GLDM_DE", "CT_MIN"], "nyxus", ["MIN", "GLDM_DE"]),
        # The tool is the one of most columns: both write GLRLM_SRE.
        (["GLRLM_SRE", "GLRLM_LRE", "NGLDM_Busyness"], "lifex", ["GLRLM_SRE", "GLRLM_LRE", "NGLDM_Busyness"]),
        (["GLRLM_SRE", "GLCM_ASM", "GLDZM_ZP"], "nyxus", ["GLRLM_SRE", "GLCM_ASM", "GLDZM_ZP"]),
    ],
)  # fmt: skip
def test_words_count_in_the_company_of_names(columns, tool, taken):
    assert best_tool([*columns, "age"]) == (tool, taken)


def test_a_table_of_words_alone_is_of_no_tool(tmp_path):
    header = ["case", "THICKNESS", "MAX", "EXTENT"]
    with pytest.raises(CohortError, match="no column is named like a feature"):
        read_feature_table(write(tmp_path / "t.csv", [["a", 1, 2, 3]], header))


def test_a_pattern_never_takes_an_outcome(tmp_path):
    header = [
        "case", "t1", "OS_time", "label", "days_to_death", "tumour_recurrence", "split", "Diagnosis", "y",
    ]  # fmt: skip
    table = write(tmp_path / "t.csv", [["a", *range(8)], ["b", *range(1, 9)]], header)
    assert read_feature_table(table, ("*",)).names == ("t1",)
    assert read_feature_table(table, ("t*", "OS_time")).names == ("t1", "OS_time")


def test_modalities_stand_side_by_side_and_a_case_without_one_has_no_bag(tmp_path):
    rows = [
        ["a", "CT", 1], ["b", "CT", 2], ["c", "CT", 3], ["c", "T1", 30], ["a", "T1", 10],
    ]  # fmt: skip
    table = write(tmp_path / "t.csv", rows, ["case", "modality", MEAN])
    done = radiomics_bags(table, tmp_path / "store")
    assert done.names == (f"CT_{MEAN}", f"T1_{MEAN}")
    assert done.incomplete == {"b": "no features of T1"}
    assert np.asarray(read_bag(tmp_path / "store" / "c.h5").features).tolist() == [[3, 30]]
    assert not (tmp_path / "store" / "b.h5").exists()


def test_useless_features_are_left_out_with_the_reason(tmp_path):
    names = [MEAN, NOISE, SHIFTED, "original_firstorder_Energy"]
    rows = [["a", 1, 5, "", 1e31], ["b", 2, 5, 3, 2], ["c", 3, 5, "inf", 3]]
    done = radiomics_bags(write(tmp_path / "t.csv", rows, ["case", *names]), tmp_path / "store")
    assert done.names == (MEAN,)
    assert done.left_out == {
        NOISE: "one value in all cases",
        SHIFTED: "empty in 2 of 3 cases",
        "original_firstorder_Energy": "beyond 1e+30, which features are stored up to",
    }


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([["a", 1], ["a", 2]], ["case", MEAN], r"line 3: a has a row on line 2 already"),
        ([["a", 1], ["A ", 2]], ["case", MEAN], "spel"),
        (
            [["a", 1], ["b", "high"]],
            ["case", MEAN],
            f"line 3: {MEAN} is 'high', which is no number",
        ),
        ([["", 1], ["b", 2]], ["case", MEAN], "line 2: case is empty"),
        ([[1, 2]], ["nr", MEAN], "no column case; it has nr"),
        ([["a", 1], ["b", 1]], ["case", MEAN], "no feature is left of 1 features"),
    ],
)
def test_tables_that_cannot_be_used_say_why(tmp_path, rows, header, message):
    with pytest.raises(CohortError, match=message):
        radiomics_bags(write(tmp_path / "t.csv", rows, header), tmp_path / "store")


def test_second_readings_that_do_not_belong_are_refused(readings, tmp_path):
    first, _, _ = readings
    rows = [["P00", 1], ["P01", 2], ["X", 3]]
    with pytest.raises(CohortError, match="X of the second reading are not in"):
        radiomics_bags(
            first, tmp_path / "s", repeat=write(tmp_path / "b.csv", rows, ["case", MEAN])
        )
    with pytest.raises(CohortError, match="2 cases were read twice"):
        radiomics_bags(
            first, tmp_path / "s", repeat=write(tmp_path / "b.csv", rows[:2], ["case", MEAN])
        )
    rows = [[f"P0{i}", i] for i in range(4)]
    other = write(tmp_path / "b.csv", rows, ["case", "original_glcm_Imc1"])
    with pytest.raises(CohortError, match="shares no feature with"):
        radiomics_bags(first, tmp_path / "s", repeat=other)
    with pytest.raises(CohortError, match=r"icc is 1\.5\. It lies between 0 and 1"):
        radiomics_bags(first, tmp_path / "s", icc=1.5)


def test_a_store_of_other_features_is_not_mixed(readings, tmp_path):
    first, second, _ = readings
    radiomics_bags(first, tmp_path / "store")
    radiomics_bags(first, tmp_path / "store")
    with pytest.raises(BagError, match="holds bags of other features"):
        radiomics_bags(first, tmp_path / "store", repeat=second)


def test_pooled_models_learn_from_them(tmp_path, mil):
    rng = np.random.default_rng(2)
    rows = [
        [f"c{i}", 3 * (i % 2) + rng.normal(0, 0.5), rng.normal(), rng.normal()] for i in range(12)
    ]
    rows = [[*row, i % 2] for i, row in enumerate(rows)]
    write(tmp_path / "radiomics.csv", rows, ["case", MEAN, NOISE, SHIFTED, "P16"])
    write(tmp_path / "cohort.csv", [[f"c{i}", f"c{i}", "ab"[i % 2]] for i in range(12)],
          ["case", "slide", "label"])  # fmt: skip
    done = mil("volumes", "radiomics", "radiomics.csv", "--out", "store", cwd=tmp_path)
    printed = done.stdout
    assert "are not used: P16." in done.stdout + done.stderr
    assert "12 cases with 3 features of pyradiomics: store" in printed
    assert f"Features: {MEAN}, {NOISE}, {SHIFTED}." in printed
    mil("crossval", "cohort.csv", "store", "--models", "pooled-svm,pooled-logistic", "--folds", 2,
        "--repeats", 1, "--out", "run", cwd=tmp_path)  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "run" / "predictions.csv").read_text().splitlines()))
    assert {row["model"] for row in rows} == {"pooled-svm", "pooled-logistic"}
    for label, above in (("a", False), ("b", True)):
        p = np.array([float(row["p_b"]) for row in rows if row["label"] == label])
        assert (p.mean() > 0.5) == above


def test_a_second_reading_that_is_the_first_is_refused(readings, tmp_path):
    first, _, x = readings
    with pytest.raises(CohortError, match=r"20 cases of 20 have the numbers of .* a copy is no"):
        radiomics_bags(first, tmp_path / "store", repeat=first)
    shuffled = write(
        tmp_path / "again.csv",
        [[f"p{i:02d}", x[i, 1], x[i, 0]] for i in (7, 3, 12, 1)],
        ["case", NOISE, MEAN],
    )
    with pytest.raises(CohortError, match="4 cases of 4 have"):
        radiomics_bags(first, tmp_path / "store", repeat=shuffled)
    rows = [[f"P{i:02d}", *(x[i] + (0 if i in (5, 6) else 0.25))] for i in range(12)]
    some = write(tmp_path / "some.csv", rows, ["case", MEAN, NOISE, SHIFTED])
    with pytest.raises(CohortError, match=r"2 cases of 12 have the numbers of .*P05, P06"):
        radiomics_bags(first, tmp_path / "store", repeat=some)


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("wavelet-LLH_firstorder_Mean", True), ("wavelet2-LLH_firstorder_Mean", True),
        ("log-sigma-3-0-mm-3D_glcm_Contrast", True), ("wavelet2_outcome", False), ("outcome_mean", False),
    ],
)  # fmt: skip
def test_filters_before_a_name_of_pyradiomics_belong_to_it(name, taken):
    assert feature_columns([name], "pyradiomics") == [name] * taken


@pytest.mark.parametrize("rounding", ["6 decimals", "3 decimals", "7 digits", "single", "first"])
def test_a_second_reading_that_is_the_first_rounded_is_refused(readings, tmp_path, rounding):
    first, _, x = readings
    small = x * [1, 1e-3, 1e4]
    rounded = {
        "6 decimals": np.round(small, 6), "3 decimals": np.round(small, 3), "first": small,
        "7 digits": np.array([[float(f"{v:.7g}") for v in row] for row in small]),
        "single": small.astype(np.float32).astype(float),
    }[rounding]  # fmt: skip
    header = ["case", MEAN, NOISE, SHIFTED]
    rows = np.round(small, 4) if rounding == "first" else small
    write(first, [[f"P{i:02d}", *rows[i]] for i in range(20)], header)
    second = write(tmp_path / "b.csv", [[f"P{i:02d}", *rounded[i]] for i in range(4, 12)], header)
    with pytest.raises(CohortError, match="8 cases of 8 have the numbers of"):
        radiomics_bags(first, tmp_path / "s", repeat=second, icc=0)


def test_two_readings_in_few_decimals_are_two(readings, tmp_path):
    first, _, x = readings
    header = ["case", MEAN, NOISE, SHIFTED]
    write(first, [[f"P{i:02d}", *np.round(x[i], 3)] for i in range(20)], header)
    rows = [[f"P{i:02d}", *np.round(x[i] + [0.002, 0.003, -0.004], 3)] for i in range(12)]
    done = radiomics_bags(first, tmp_path / "s", repeat=write(tmp_path / "b.csv", rows, header))
    assert done.names == (MEAN, NOISE, SHIFTED)


def configured(path, rows):
    """A table of three features; a row has a case, a modality, and what pyradiomics says of its settings."""
    rng = np.random.default_rng(len(path.name))
    header = ["case", "modality", "diagnostics_Configuration_Settings", MEAN, NOISE, SHIFTED]
    return write(path, [[*row, *rng.normal(size=3)] for row in rows], header)


def settings(width, **others):
    return str({"binWidth": width, **others})


def test_features_of_other_settings_are_not_put_together(tmp_path):
    mixed = [(f"p{n}", "MR", settings(25 if n < 4 else 5)) for n in range(9)]
    with pytest.raises(CohortError, match="Settings differs between the lines 2 and 6"):
        read_feature_table(configured(tmp_path / "mixed.csv", mixed))
    both = [
        (f"p{n}", of, settings(width, label=n))
        for n in range(6)
        for of, width in (("CT", 25), ("MR", 5))
    ]
    assert len(read_feature_table(configured(tmp_path / "both.csv", both)).cases) == 6


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(f"p{n}", "US", settings(10)) for n in range(5)], "is of US, and .* of MR"),
        ([(f"p{n}", "MR", settings(32)) for n in range(5)], "extracted with other settings"),
    ],
)
def test_a_second_reading_of_something_else_is_refused(tmp_path, rows, message):
    first = configured(tmp_path / "first.csv", [(f"p{n}", "MR", settings(10)) for n in range(8)])
    second = configured(tmp_path / "again.csv", rows)
    with pytest.raises(CohortError, match=message):
        radiomics_bags(first, tmp_path / "store", repeat=second)


def test_modalities_are_spelt_in_one_way(tmp_path):
    rows = [("p1", "PET", ""), ("p2", "Pet", "")]
    with pytest.raises(CohortError, match=r"modality 'P.*' and 'P.*' differ in spelling only"):
        read_feature_table(configured(tmp_path / "t.csv", rows))


@pytest.mark.parametrize("name", ["therapy_response", "node_status", "is_malignant", "test_label2"])
def test_a_pattern_takes_no_column_that_other_tables_would_refuse(tmp_path, name):
    path = write(
        tmp_path / "t.csv", [[f"p{n}", n * 1.5, n % 2] for n in range(6)], ["case", "deep_a", name]
    )
    assert read_feature_table(path, ["*"]).names == ("deep_a",)
    assert read_feature_table(path, ["deep_a", name]).names == ("deep_a", name)
