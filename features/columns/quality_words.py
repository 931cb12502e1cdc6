"""Words by which tables say whether a row is to be used: of headers, and of cells, in several languages.

All are compared in small letters and without accents.
"""

# Headers under which yes says that a slide is good, or that it may be used.
GOOD_MARKS = frozenset((
    "qc", "qa", "quality", "qualitat", "qualitaet", "qualite", "calidad", "qualita", "qualidade", "kwaliteit",
    "kvalitet", "jakosc", "usable", "useable", "usability", "suitable", "suitability", "adequate", "adequacy",
    "evaluable", "evaluability", "assessable", "analysable", "analyzable", "eligible", "eligibility",
    "readable", "keep", "ok", "okay", "pass", "passed", "accepted", "approved", "consent", "verwendbar",
    "verwendbarkeit", "brauchbar", "auswertbar", "geeignet", "verwertbar", "beurteilbar", "einwilligung",
    "utilisable", "exploitable", "interpretable", "consentement", "utilizable", "consentimiento",
    "evaluabile", "utilizzabile", "valutabile", "consenso", "utilizavel", "avaliavel", "consentimento",
    "bruikbaar", "beoordeelbaar", "toestemming", "anvandbar", "brukbar", "przydatny", "zgoda",
))  # fmt: skip
# Those under which yes says that it is not.
BAD_MARKS = frozenset((
    "unusable", "unsuitable", "inadequate", "ineligible", "discard", "discarded", "drop", "dropped", "remove",
    "removed", "reject", "rejected", "bad", "fail", "failed", "failure", "skip", "unbrauchbar", "verworfen",
    "ungeeignet", "inutilisable", "inutilizable", "inutilizzabile", "onbruikbaar",
    "exclude", "excluded", "excluir", "exclure", "exclusion", "omit", "omitted", "ausgeschlossen",
    "ausschluss", "esclusione", "exclusao",
))  # fmt: skip
REASONS = frozenset(
    ("reason", "reasons", "grund", "motif", "raison", "motivo", "reden", "cause", "why")
)
# Beside these such a word still says so of the row.
BESIDE = frozenset((
    "check", "control", "controle", "status", "result", "flag", "image", "images", "scan", "wsi", "tissue",
    "bild", "schnitt", "imagen", "immagine", "manual", "visual", "review", "research", "informed", "given",
    "criteria", "criterion", "analyses", "be", "should", "i", "di", "d", "l", "la", "le", "de", "da", "do",
    "y", "n", "yn",
))  # fmt: skip
# Cells that say so under such a header.
BAD_WORDS = frozenset((
    "fail", "failed", "bad", "poor", "insufficient", "inadequate", "not adequate", "ineligible",
    "not eligible", "withdrawn", "refused", "declined", "revoked", "schlecht", "ungenugend", "ungeeignet",
    "nicht geeignet", "widerrufen", "mauvais", "mauvaise", "insuffisant", "insuffisante", "mala", "malo",
    "insuficiente", "cattiva", "insufficiente", "ruim", "ma", "slecht", "onvoldoende", "dalig", "zla",
))  # fmt: skip
# Cells that say so under any.
LEFT_OUT_WORDS = frozenset((
    "exclude", "excluded", "reject", "rejected", "discard", "discarded", "unusable", "not usable",
    "do not use", "don t use", "not evaluable", "not assessable", "not analysable", "not analyzable",
    "failed qc", "qc failed", "qc fail", "fail qc", "screen failure", "consent withdrawn",
    "withdrawn consent", "ausgeschlossen", "unbrauchbar", "nicht verwendbar", "nicht auswertbar",
    "nicht verwerten", "verworfen", "exclu", "exclue", "inutilisable", "non exploitable", "excluido",
    "excluida", "no utilizable", "no usar", "escluso", "esclusa", "inutilizzabile", "non utilizzabile",
    "nao usar", "uitgesloten", "onbruikbaar", "exkluderad", "ekskludert", "wykluczony", "排除", "除外",
))  # fmt: skip
