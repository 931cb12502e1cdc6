"""Names of radiomic features, as the tools write them: whole names, listed, not words in them.

A column of an outcome that begins or ends like a feature (P16 as a percentile, vital_stat as a statistic) is
none, nor is one word that other tables have too (MAX, THICKNESS) without names of the tool beside it.

Source: PyRadiomics (pyradiomics.readthedocs.io/en/latest/features.html), whose names matRadiomics writes too;
LIFEx (lifexsoft.org, texture user guide) with codes of the IBSI reference manual (arXiv:1612.07003); MIRP
(oncoray.github.io/mirp/features_names.html); Nyxus (nyxus.readthedocs.io/en/latest/featurelist.html).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from features.columns.names import OUTCOME, is_outcome
from features.columns.spelling import plain_header

MODALITY = r"(?:CBCT|CT|PET|PT|MRI?|T[12][A-Za-z0-9+]*|ADC|DWI|FLAIR|SWI|PD|US|SUV)_"

PYRADIOMICS_FILTERS = (
    r"original|wavelet(?:2D)?\d*[-.][HL]{2,3}|log[-.]sigma[-.][\d.-]+mm[-.][23]D|square|squareroot|logarithm"
    r"|exponential|gradient|lbp[-.]2D|lbp[-.]3D[-.](?:m\d+|k)"
)
_GREY = (
    "GrayLevelNonUniformity GrayLevelNonUniformityNormalized GrayLevelVariance"  # of all matrices
)
_AXES = "MajorAxisLength MinorAxisLength Elongation Sphericity SphericalDisproportion"
PYRADIOMICS = {
    "shape": f"{_AXES} LeastAxisLength Flatness Volume MeshVolume VoxelVolume SurfaceArea SurfaceVolumeRatio"
    " Compactness1 Compactness2 Maximum3DDiameter Maximum2DDiameterSlice Maximum2DDiameterColumn"
    " Maximum2DDiameterRow MajorAxis MinorAxis LeastAxis",
    "shape2D": f"{_AXES} MeshSurface PixelSurface Perimeter PerimeterSurfaceRatio MaximumDiameter",
    "firstorder": "Energy TotalEnergy Entropy Minimum 10Percentile 90Percentile Maximum Mean Median"
    " InterquartileRange Range MeanAbsoluteDeviation RobustMeanAbsoluteDeviation RootMeanSquared"
    " StandardDeviation Skewness Kurtosis Variance Uniformity",
    "glcm": "Autocorrelation JointAverage AverageIntensity ClusterProminence ClusterShade ClusterTendency"
    " Contrast Correlation DifferenceAverage DifferenceEntropy DifferenceVariance Dissimilarity JointEnergy"
    " Energy JointEntropy Entropy Homogeneity1 Homogeneity2 Imc1 Imc2 Id Idn Idm Idmn MCC InverseVariance"
    " MaximumProbability SumAverage SumEntropy SumVariance SumVariance2 SumSquares",
    "gldm": f"{_GREY} SmallDependenceEmphasis LargeDependenceEmphasis DependenceNonUniformity"
    " DependenceNonUniformityNormalized DependenceVariance DependenceEntropy DependencePercentage"
    " LowGrayLevelEmphasis HighGrayLevelEmphasis SmallDependenceLowGrayLevelEmphasis"
    " SmallDependenceHighGrayLevelEmphasis LargeDependenceLowGrayLevelEmphasis"
    " LargeDependenceHighGrayLevelEmphasis",
    "glrlm": f"{_GREY} ShortRunEmphasis LongRunEmphasis RunLengthNonUniformity"
    " RunLengthNonUniformityNormalized RunPercentage RunVariance RunEntropy LowGrayLevelRunEmphasis"
    " HighGrayLevelRunEmphasis ShortRunLowGrayLevelEmphasis ShortRunHighGrayLevelEmphasis"
    " LongRunLowGrayLevelEmphasis LongRunHighGrayLevelEmphasis",
    "glszm": f"{_GREY} SmallAreaEmphasis LargeAreaEmphasis SizeZoneNonUniformity"
    " SizeZoneNonUniformityNormalized ZonePercentage ZoneVariance ZoneEntropy LowGrayLevelZoneEmphasis"
    " HighGrayLevelZoneEmphasis SmallAreaLowGrayLevelEmphasis SmallAreaHighGrayLevelEmphasis"
    " LargeAreaLowGrayLevelEmphasis LargeAreaHighGrayLevelEmphasis",
    "ngtdm": "Coarseness Contrast Busyness Complexity Strength",
}

_NUMBER = r"\d+(?:\.\d+)?"
MIRP_FILTERS = (
    r"wavelet_(?:haar|dmey|(?:db|sym|coif)\d+|(?:bior|rbio)\d[\d.]*|simoncelli|shannon)"
    r"(?:_(?:[hl]{2,3}|level_\d+|decimated|invar))*"
    rf"|(?:norm_)?log_s_{_NUMBER}|lapl_n_{_NUMBER}|gaussian_s_{_NUMBER}|mean_d_{_NUMBER}"
    rf"|laws(?:_(?:[les]\d)+)(?:_energy_delta_{_NUMBER})?(?:_invar)?"
    rf"|gabor(?:_[sglt]_{_NUMBER})+_[23]D(?:_invar)?"
    rf"|lbp_[23]d(?:_(?:var|kurt|rot_invar))?_d{_NUMBER}"
    "|square|sqrt|exp|lgrthm|prewitt|sobel"
)
MIRP_PARAMETERS = (
    r"(?:_(?:d[\d.]+|a[\d.]+|2d|2\.5d|3d|avg|[sdv]_mrg|min|max|fbn|fbsp?|w[\d.]+|n\d+))*"
)
_HISTOGRAM = "mean var skew kurt median min max iqr range mad rmad medad cov qcod"
_DENSITY = " ".join(
    f"{of}_dens_{by}"
    for of in ("vol", "area")
    for by in ("aabb", "aee", "conv_hull", "ombb", "mvee")
)
MIRP = {
    "morph": f"{_DENSITY} volume vol_approx area_mesh av comp_1 comp_2 sph_dispr sphericity asphericity com"
    " diam integ_int moran_i geary_c pca_maj_axis pca_min_axis pca_least_axis pca_elongation pca_flatness"
    " max_2d_diam_x max_2d_diam_y max_2d_diam_z",
    "loc_peak": "loc glob",
    "stat": f"{_HISTOGRAM} energy rms energy_offset rms_offset total_energy total_energy_offset",
    "ih": f"{_HISTOGRAM} mode entropy uniformity max_grad max_grad_g min_grad min_grad_g",
    "ivh": "auc",
    "cm": "joint_max joint_avg joint_var joint_entr diff_avg diff_var diff_entr sum_avg sum_var sum_entr"
    " energy contrast dissimilarity inv_diff inv_diff_norm inv_diff_mom inv_diff_mom_norm inv_var corr"
    " auto_corr clust_tend clust_shade clust_prom info_corr1 info_corr2 mcc",
    "rlm": "sre lre lgre hgre srlge srhge lrlge lrhge glnu glnu_norm rlnu rlnu_norm r_perc gl_var rl_var"
    " rl_entr",
    "szm": "sze lze lgze hgze szlge szhge lzlge lzhge glnu glnu_norm zsnu zsnu_norm z_perc gl_var zs_var"
    " zs_entr",
    "dzm": "sde lde lgze hgze sdlge sdhge ldlge ldhge glnu glnu_norm zdnu zdnu_norm z_perc gl_var zd_var"
    " zd_entr",
    "ngt": "coarseness contrast busyness complexity strength",
    "ngl": "lde hde lgce hgce ldlge ldhge hdlge hdhge glnu glnu_norm dcnu dcnu_norm dc_perc gl_var dc_var"
    " dc_entr dc_energy",
}
MIRP_PERCENTILES = (
    rf"(?:stat|ih)_p{_NUMBER}|ivh_[vi]{_NUMBER}|ivh_diff_(?:v{_NUMBER}_v|i{_NUMBER}_i){_NUMBER}"
)

_INTENSITY = (
    "COVERED_IMAGE_INTENSITY_RANGE EXCESS_KURTOSIS HYPERFLATNESS HYPERSKEWNESS INTEGRATED_INTENSITY"
    " INTERQUARTILE_RANGE MEAN_ABSOLUTE_DEVIATION MEDIAN_ABSOLUTE_DEVIATION QCOD ROBUST_MEAN"
    " ROBUST_MEAN_ABSOLUTE_DEVIATION ROOT_MEAN_SQUARED STANDARD_DEVIATION_BIASED VARIANCE_BIASED"
    " UNIFORMITY_PIU"
)
NYXUS_WORDS = (  # that clinical tables have too
    "COV ENERGY ENTROPY KURTOSIS MAX MEAN MEDIAN MIN MODE RANGE SKEWNESS STANDARD_DEVIATION STANDARD_ERROR"
    " VARIANCE UNIFORMITY P01 P10 P25 P75 P90 P99 COMPACTNESS ELONGATION EXTENT ORIENTATION PERIMETER"
    " ROUNDNESS SOLIDITY THICKNESS CIRCULARITY ECCENTRICITY ASPECT_RATIO SHARPNESS AREA"
)
_CHORDS = " ".join(
    f"{of}CHORDS_{by}"
    for of in ("MAX", "ALL")
    for by in ("MAX", "MAX_ANG", "MIN", "MIN_ANG", "MEDIAN", "MEAN", "MODE", "STDDEV")
)
_DIAMETERS = " ".join(
    f"STAT_{of}_DIAM_{by}"
    for of in ("FERET", "MARTIN", "NASSENSTEIN")
    for by in ("MIN", "MAX", "MEAN", "MEDIAN", "STDDEV", "MODE")
)
NYXUS_SHAPES = (
    f"{_CHORDS} {_DIAMETERS} AREA_PIXELS_COUNT AREA_UM2 CENTROID_X CENTROID_Y WEIGHTED_CENTROID_X"
    " WEIGHTED_CENTROID_Y MASS_DISPLACEMENT BBOX_YMIN BBOX_XMIN BBOX_HEIGHT BBOX_WIDTH DIAMETER_EQUAL_AREA"
    " DIAMETER_EQUAL_PERIMETER EQUIVALENT_DIAMETER MAJOR_AXIS_LENGTH MINOR_AXIS_LENGTH EDGE_MEAN_INTENSITY"
    " EDGE_STDDEV_INTENSITY EDGE_MAX_INTENSITY EDGE_MIN_INTENSITY EDGE_INTEGRATED_INTENSITY CONVEX_HULL_AREA"
    " EROSIONS_2_VANISH EROSIONS_2_VANISH_COMPLEMENT FRACT_DIM_BOXCOUNT FRACT_DIM_PERIMETER"
    " MIN_FERET_DIAMETER MAX_FERET_DIAMETER MIN_FERET_ANGLE MAX_FERET_ANGLE EULER_NUMBER POLYGONALITY_AVE"
    " HEXAGONALITY_AVE HEXAGONALITY_STDDEV DIAMETER_MIN_ENCLOSING_CIRCLE DIAMETER_CIRCUMSCRIBING_CIRCLE"
    " DIAMETER_INSCRIBING_CIRCLE GEODETIC_LENGTH ROI_RADIUS_MEAN ROI_RADIUS_MAX ROI_RADIUS_MEDIAN"
    " NUM_NEIGHBORS PERCENT_TOUCHING CLOSEST_NEIGHBOR1_DIST CLOSEST_NEIGHBOR1_ANG CLOSEST_NEIGHBOR2_DIST"
    " CLOSEST_NEIGHBOR2_ANG ANG_BW_NEIGHBORS_MEAN ANG_BW_NEIGHBORS_STDDEV ANG_BW_NEIGHBORS_MODE FOCUS_SCORE"
    " LOCAL_FOCUS_SCORE POWER_SPECTRUM_SLOPE MAX_SATURATION MIN_SATURATION"
)
NYXUS_SOLIDS = (
    "3AREA_2_VOLUME 3COMPACTNESS1 3COMPACTNESS2 3ELONGATION 3FLATNESS 3SPHERICITY 3SPHERICAL_DISPROPORTION"
    " 3MESH_VOLUME 3VOXEL_VOLUME 3VOLUME_CONVEXHULL 3MAJOR_AXIS_LEN 3MINOR_AXIS_LEN 3LEAST_AXIS_LEN"
    " 3SURFACE_AREA"
)
NYXUS_TEXTURES = {
    "GLCM": "ASM ACOR CLUPROM CLUSHADE CLUTEND CONTRAST CORRELATION DIFAVE DIFENTRO DIFVAR DIS ENERGY ENTROPY"
    " HOM1 HOM2 ID IDN IDM IDMN INFOMEAS1 INFOMEAS2 IV JAVE JE JMAX JVAR SUMAVERAGE SUMENTROPY SUMVARIANCE"
    " VARIANCE ANGULAR2NDMOMENT DIFFERENCEAVERAGE DIFFERENCEENTROPY DIFFERENCEVARIANCE HOMOGENEITY"
    " INVERSEDIFFERENCEMOMENT MAXCORRCOEF",
    "GLRLM": "SRE LRE GLN GLNN RLN RLNN RP GLV RV RE LGLRE HGLRE SRLGLE SRHGLE LRLGLE LRHGLE",
    "GLSZM": "SAE LAE GLN GLNN SZN SZNN ZP GLV ZV ZE LGLZE HGLZE SALGLE SAHGLE LALGLE LAHGLE",
    "GLDZM": "SDE LDE LGLE HGLE LGLZE HGLZE SDLGLE SDHGLE LDLGLE LDHGLE GLNU GLNUN ZDNU ZDNUN ZP GLM GLV ZDM"
    " ZDV ZDE",
    "GLDM": "SDE LDE GLN DN DNN GLV DV DE LGLE HGLE SDLGLE SDHGLE LDLGLE LDHGLE",
    "NGLDM": "LDE HDE LGLCE HGLCE LDLGLE LDHGLE HDLGLE HDHGLE GLNU GLNUN DCNU DCNUN DCP GLM GLV DCM DCV DCE"
    " DCENT DCENE",
    "NGTDM": "COARSENESS CONTRAST BUSYNESS COMPLEXITY STRENGTH",
}
NYXUS_SERIES = (  # of numbered names
    r"GABOR_\d+|ZERNIKE2D_Z?\d+|(?:FRAC_AT_D|MEAN_FRAC|RADIAL_CV)_\d+|EXTREMA_P[1-8]_[XY]"
    r"|(?:(?:WEIGHTED_|NORM_)?(?:SPAT|CENTRAL)|WT_NORM_CTR|NORM_CTR)_MOMENT_[0-3]{2}|(?:WEIGHTED_)?HU_M[1-7]"
    r"|IMOM_(?:W?RM|W?CM|W?NCM|NRM)_[0-3]{2}|IMOM_W?HU[1-7]"
)

LIFEX_UNITS = r"(?:\[[^\]]*\]|\([^)]*\))*"
LIFEX_IBSI = (  # LIFEx 7: a family, a name, and the code of IBSI for it
    r"(?:MORPHOLOGICAL|(?:LOCAL_)?INTENSITY[-_](?:BASED|HISTOGRAM)(?:-RIM)?|GLCM|GLRLM|NGTDM|NGLDM|GLSZM|GLDZM)"
    rf"_[A-Za-z0-9-]+(?:\[[^\]]*\])?\(IBSI:[A-Za-z0-9]+\){LIFEX_UNITS}"
)
_VALUES = r"(?:SUV[a-z]*|HU|Bq|MR)?"
LIFEX_VALUES = (
    rf"CONVENTIONAL_(?:RIM_)?{_VALUES}(?:min|mean|std|max|sum|Q[123]|Skewness|Kurtosis|ExcessKurtosis"
    rf"|peakSphere[\d.]+mL|calciumAgatstonScore)|CONVENTIONAL_TLG"
    rf"|DISCRETIZED_(?:RIM_)?{_VALUES}(?:min|mean|std|max|sum|Q[123]|peakSphere[\d.]+mL)"
    "|DISCRETIZED_(?:HISTO_(?:Skewness|Kurtosis|ExcessKurtosis|Entropy_log(?:2|10)|Energy)|AUC_CSH|TLG)"
)
LIFEX = {
    "SHAPE": "Volume Sphericity Surface Compacity",
    "GLCM": "Homogeneity Energy Contrast Correlation Entropy_log10 Entropy_log2 Dissimilarity",
    "GLRLM": "SRE LRE LGRE HGRE SRLGE SRHGE LRLGE LRHGE GLNU RLNU RP",
    "NGLDM": "Coarseness Contrast Busyness",
    "GLZLM": "SZE LZE LGZE HGZE SZLGE SZHGE LZLGE LZHGE GLNU ZLNU ZP",
}


@dataclass(frozen=True)
class ToolNames:
    """What a tool calls its features.

    Attributes:
        names: pattern of a whole name without what stands before it.
        prefix: pattern of what may stand before it.
        words: names that say nothing alone, and stand behind a modality only where others of the tool do.
    """

    names: re.Pattern[str]
    prefix: str = f"(?:{MODALITY})?"
    words: frozenset[str] = frozenset()


def _listed(families: Mapping[str, str]) -> str:
    """A pattern of the names of families, each behind the name of its family."""
    return "|".join(
        f"{family}_(?:{'|'.join(map(re.escape, names.split()))})"
        for family, names in families.items()
    )


def _either(names: str) -> str:
    """A pattern of listed names."""
    return "|".join(map(re.escape, names.split()))


TOOLS = {
    "pyradiomics": ToolNames(
        re.compile(rf"(?:{PYRADIOMICS_FILTERS})_(?:{_listed(PYRADIOMICS)})"), r"(?:.+_)??"
    ),
    "lifex": ToolNames(
        re.compile(rf"{LIFEX_IBSI}|(?:{LIFEX_VALUES}|{_listed(LIFEX)}){LIFEX_UNITS}")
    ),
    "mirp": ToolNames(
        re.compile(
            rf"(?:(?:{MIRP_FILTERS})_)?(?:{_listed(MIRP)}|{MIRP_PERCENTILES}){MIRP_PARAMETERS}"
        )
    ),
    "nyxus": ToolNames(
        re.compile(
            rf"3?(?:{_listed(NYXUS_TEXTURES)})(?:_(?:AVE|\d+))?|3?(?:{_either(_INTENSITY)})"
            rf"|3(?:{_either(NYXUS_WORDS)})|{_either(NYXUS_SHAPES)}|{_either(NYXUS_SOLIDS)}|{NYXUS_SERIES}"
        ),
        words=frozenset(NYXUS_WORDS.split()),
    ),
}


def feature_columns(names: Iterable[str], tool: str) -> list[str]:
    """The columns that are features of a tool, in their order.

    A word that other tables have too (MAX) is one where a whole name of the tool stands beside it, and
    behind a modality (T2_MAX) where such a name stands behind the same one (T2_GLCM_ASM).

    Args:
        names: of all columns.
        tool: one of ``TOOLS``.
    """
    columns = list(names)
    prefixes = {column: _prefix(column, tool) for column in columns}
    beside = {prefix for prefix in prefixes.values() if prefix is not None}
    return [
        column
        for column in columns
        if prefixes[column] is not None
        or any(column == f"{prefix}{word}" for prefix in beside for word in TOOLS[tool].words)
    ]


def best_tool(names: Sequence[str]) -> tuple[str, list[str]] | None:
    """The tool that the most columns are features of, and these columns; None where there are none."""
    chosen = {tool: feature_columns(names, tool) for tool in TOOLS}
    tool = max(chosen, key=lambda name: len(chosen[name]))
    return (tool, chosen[tool]) if chosen[tool] else None


def _prefix(name: str, tool: str) -> str | None:
    """What stands before the name of a feature of a tool; None where the column is none."""
    of = TOOLS[tool]
    match = _whole(tool).fullmatch(name)
    if not match or of.names.fullmatch(name):
        return "" if match else None
    before = match["before"]
    outcome = is_outcome(before) or any(
        OUTCOME.fullmatch(plain_header(word)) for word in before.split("_")
    )
    return None if outcome else before


@cache
def _whole(tool: str) -> re.Pattern[str]:
    """The pattern of a column: a prefix, and the name of a feature."""
    return re.compile(rf"(?P<before>{TOOLS[tool].prefix})(?:{TOOLS[tool].names.pattern})")
