"""Names of radiomic features, as the tools write them: whole names, not words in them.

A column of an outcome that begins or ends like a feature (P16 as a percentile, vital_stat as a statistic) is
none.

Source: PyRadiomics (pyradiomics.readthedocs.io/en/latest/features.html); MIRP
(oncoray.github.io/mirp/features_names.html); Nyxus (nyxus.readthedocs.io/en/latest/featurelist.html).
"""

import re

MODALITY = r"(?:CBCT|CT|PET|PT|MRI?|T[12][A-Za-z0-9+]*|ADC|DWI|FLAIR|SWI|PD|US|SUV)_"
PYRADIOMICS_FILTERS = (
    r"original|wavelet(?:2D)?\d*[-.][HL]{2,3}|log[-.]sigma[-.][\d.-]+mm[-.][23]D|square|squareroot|logarithm"
    r"|exponential|gradient|lbp[-.]2D|lbp[-.]3D[-.](?:m\d+|k)"
)
PYRADIOMICS_CLASSES = "shape|shape2D|firstorder|glcm|gldm|glrlm|glszm|ngtdm"
MIRP_FILTERS = (
    "wavelet|separable|nonseparable|log|laws|gabor|mean|gauss|riesz|square|exponential|lbp"
)
MIRP_PARAMETERS = r"(?:_(?:d[\d.]+|a[\d.]+|2d|2\.5d|3d|avg|[sdv]_mrg|fbn|fbsp?|w[\d.]+|n\d+))*"
HISTOGRAM = "mean|var|skew|kurt|median|min|p10|p90|max|iqr|range|mad|rmad|medad|cov|qcod"
DENSITY = "(?:vol|area)_dens_(?:aabb|aee|conv_hull|ombb|mvee)"
MIRP_FAMILIES = {
    "morph": r"volume|vol_approx|area_mesh|av|comp_[12]|sph_dispr|a?sphericity|com|diam|integ_int|moran_i"
    rf"|geary_c|pca_(?:maj_axis|min_axis|least_axis|elongation|flatness)|{DENSITY}",
    "loc_peak": "loc|glob",
    "stat": rf"{HISTOGRAM}|energy|rms",
    "ih": rf"{HISTOGRAM}|mode|entropy|uniformity|(?:max|min)_grad(?:_g)?",
    "ivh": r"[vi]\d\d|diff_v\d\d_v\d\d|diff_i\d\d_i\d\d|auc",
    "cm": r"joint_(?:max|avg|var|entr)|(?:diff|sum)_(?:avg|var|entr)|energy|contrast|dissimilarity"
    r"|inv_diff(?:_mom)?(?:_norm)?|inv_var|corr|auto_corr|clust_(?:tend|shade|prom)|info_corr[12]",
    "rlm": "[sl]re|[lh]gre|[sl]r[lh]ge|(?:gl|rl)nu(?:_norm)?|r_perc|(?:gl|rl)_var|rl_entr",
    "szm": "[sl]ze|[lh]gze|[sl]z[lh]ge|(?:gl|zs)nu(?:_norm)?|z_perc|(?:gl|zs)_var|zs_entr",
    "dzm": "[sl]de|[lh]gze|[sl]d[lh]ge|(?:gl|zd)nu(?:_norm)?|z_perc|(?:gl|zd)_var|zd_entr",
    "ngt": "coarseness|contrast|busyness|complexity|strength",
    "ngl": "[lh]de|[lh]gce|[lh]d[lh]ge|(?:gl|dc)nu(?:_norm)?|dc_perc|(?:gl|dc)_var|dc_entr|dc_energy",
}
NYXUS_TEXTURES = "GLCM|GLRLM|GLSZM|GLDZM|GLDM|NGTDM|NGLDM"
NYXUS_BOTH = (  # of slices, and with a 3 before them of volumes
    "COV|COVERED_IMAGE_INTENSITY_RANGE|ENERGY|ENTROPY|(?:EXCESS_)?KURTOSIS|HYPERFLATNESS|HYPERSKEWNESS"
    "|SKEWNESS|INTEGRATED_INTENSITY|INTERQUARTILE_RANGE|MAX|MIN|MODE|RANGE|MEDIAN|(?:ROBUST_)?MEAN"
    "|(?:ROBUST_)?MEAN_ABSOLUTE_DEVIATION|MEDIAN_ABSOLUTE_DEVIATION|P(?:01|10|25|75|90|99)|QCOD"
    "|ROOT_MEAN_SQUARED|(?:STANDARD_DEVIATION|VARIANCE)(?:_BIASED)?|STANDARD_ERROR|UNIFORMITY(?:_PIU)?"
    r"|ELONGATION|FLATNESS|SPHERICITY|COMPACTNESS\d?"
)
NYXUS_SHAPES = (
    "3(?:AREA|AREA_2_VOLUME|(?:MESH|VOXEL)_VOLUME|VOLUME_CONVEXHULL|SPHERICAL_DISPROPORTION"
    "|(?:MAJOR|MINOR|LEAST)_AXIS_LEN)"
    "|AREA_PIXELS_COUNT|AREA_UM2|CONVEX_HULL_AREA|SOLIDITY|PERIMETER|CIRCULARITY|ROUNDNESS|EXTENT"
    "|ASPECT_RATIO|ECCENTRICITY|(?:MAJOR|MINOR)_AXIS_LENGTH|EQUIVALENT_DIAMETER"
    "|DIAMETER_EQUAL_(?:AREA|PERIMETER)|MASS_DISPLACEMENT|FRACT_DIM_(?:BOXCOUNT|PERIMETER)"
    r"|EDGE_(?:MEAN|MAX|MIN|STDDEV)_INTENSITY|EROSIONS_2_VANISH(?:_COMPLEMENT)?"
)
NYXUS_FILTERS = r"GABOR_\d+|ZERNIKE2D_Z?\d+|(?:FRAC_AT_D|MEAN_FRAC|RADIAL_CV)_\d+"

_FAMILIES = "|".join(f"{family}_(?:{names})" for family, names in MIRP_FAMILIES.items())
TOOLS = {  # the names of features, by the tool that writes them
    "pyradiomics": rf"(?:.+_)?(?:{PYRADIOMICS_FILTERS})_(?:{PYRADIOMICS_CLASSES})_[A-Z0-9][A-Za-z0-9]+",
    "mirp": rf"(?:{MODALITY})?(?:(?:{MIRP_FILTERS})[\w.+-]*_)?(?:{_FAMILIES}){MIRP_PARAMETERS}",
    "nyxus": rf"(?:{MODALITY})?(?:3?(?:{NYXUS_TEXTURES})_[A-Z0-9]+(?:_(?:AVE|\d+))?|3?(?:{NYXUS_BOTH})"
    rf"|{NYXUS_SHAPES}|{NYXUS_FILTERS})",
}


def is_feature(name: str, tool: str) -> bool:
    """Whether a column is named as a feature of a tool, one of ``TOOLS``."""
    return bool(re.fullmatch(TOOLS[tool], name))
