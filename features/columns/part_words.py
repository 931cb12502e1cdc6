"""Words by which tables say that a case is for training or for testing, in several languages.

All are compared in small letters and without accents: ``Bestätigung`` is ``bestatigung``.
"""

import re

_ENDING = (
    "s?(?:sets?|subsets?|cohorts?|kohorten?|kollektive?|stichproben?|samples?|groups?|gruppen?|data"
    "|daten(?:satz)?|satz|mengen?|cases|falle|faelle|patient(?:s|en)?|flag|teil)?"
)
# What a word of a cell, or of a header, says of a case.
KINDS = {
    kind: re.compile(rf"(?:{words}){_ENDING}|.*(?:{signs}).*" if signs else rf"(?:{words}){_ENDING}")
    for kind, words, signs in (
        ("train", "train(?:ings?)?|trn?|learn(?:ing)?|(?:an)?lern(?:en)?|trainieren|entrainer|entrenar"
         "|addestrare|treinar|trainen|development|derivation|discovery"
         "|entwicklungs?|ableitungs?|modellbildungs?|entrainement|apprentissage|entrenamiento|desarrollo"
         "|addestramento|sviluppo|treino|treinamento|desenvolvimento|traning|tr(?:æ|ae)ning|trening(?:ow[aey])?"
         "|uczac[aey]|opetus|egitim|обуч\\w*|трен\\w*", "训练|訓練|学習|훈련|학습"),
        ("test", "tests?|testing|testen|tester|testar|testare|probar|prufen|toetsen|tst"
         "|holdout|heldout|eval(?:uation)?|evaluierungs?|prufungs?|pruf|prueba"
         "|teste|verifica|reserved|aside|testow[aey]|testi|teszt|lockbox|тест\\w*",
         "测试|測試|テスト|評価|테스트|시험"),
        ("valid", "val|valid(?:ation|ierungs?)?|validacion|validazione|convalida|validacao|validering"
         "|walidac\\w*|validieren|valider|validar|validare|valideren"
         "|replication|replikations?|confirmation|confirmatory|konfirmations?|bestatigungs?"
         "|confirmacion|conferma|verification|verifizierungs?|blinded|hidden|валид\\w*|провер\\w*",
         "验证|驗證|検証|검증"),
        ("external", "external|externe?r?|externa|externo|esterna|ext|independent|unabhangige?|unseen",
         "外部"),
        ("internal", "internal|interne?r?|interna|interno|int", "内部"),
        ("short", "te|ts", ""),  # for testing beside tr alone
    )
}  # fmt: skip
FILLERS = frozenset((
    "a", "an", "are", "as", "belongs", "blind", "case", "cases", "cohort", "cohorts", "data", "dataset",
    "final", "flag", "fold", "folds", "for", "from", "group", "groups", "gruppe", "im", "in", "is", "ist",
    "kept", "kohorte", "locked", "of", "only", "our", "own", "part", "patient", "patients", "sample",
    "samples", "secret", "set", "sets", "slide", "slides", "split", "splits", "subset", "subsets", "the",
    "to", "use", "used", "von", "zum", "zur",
))  # fmt: skip
NEGATIONS = frozenset((
    "aus", "ausgeschlossen", "exclude", "excluded", "excludes", "keep", "kein", "never", "nicht", "no", "non",
    "not", "omit", "omitted", "out", "remove", "removed", "sans", "sin", "without",
))  # fmt: skip
# Headers that say by yes or no, with ``FILLERS`` alone beside them, that a case is left out, or not.
LEFT_OUT = frozenset((
    "ausgeschlossen", "ausschluss", "exclude", "excluded", "excluir", "exclure", "exclusion", "omit",
    "omitted",
))  # fmt: skip
TAKEN = frozenset(("eingeschlossen", "einschluss", "include", "included", "inclusion"))
STUDY = frozenset(("analyse", "analysis", "model", "modelling", "modeling", "studie", "study"))
# Headers under which a single such word tells.
SETS = re.compile(
    "(?:cohort|dataset|set|split|subset|partition|fold|teilmenge|datensatz|kollektiv|stichprobe|ensemble|jeu"
    "|conjunto|insieme|subconjunto|cohorte?|coorte|coorti|zbior|выборка)s?|cv|kohorten?|lot"
    "|.*(?:kohorte|cohorte?|datensatz|dataset|subset|kollektiv|数据集|データセット|コホート|区分|分组|队列|데이터셋|코호트).*"
)
# Those of them under which codes such as 1 and 2 are hardly anything but parts.
CODED = re.compile(
    "(?:data|daten)?split(?:s|ting)?|sets?|subsets?|partition(?:s|ing)?|teilmengen?|aufteilung|jeux?|ensemble"
    "|conjuntos?|subconjuntos?|insiemi|insieme|zbior|podzial|выборка|.*区分"
)
# Those that say as often something else: arms of a trial, genotypes, sides.
GROUPS = frozenset((
    "allocation", "assignment", "aufteilung", "data", "daten", "donnees", "datos", "dati", "dados", "groep",
    "group", "groups", "groupe", "grupo", "gruppe", "gruppo", "mode", "part", "phase", "purpose", "role",
    "usage", "use", "utilisation", "verwendung", "zuordnung", "zuteilung", "zweck", "データ", "数据",
    "데이터",
))  # fmt: skip
# Those of them under which external and internal are places or ways.
SIDES = frozenset(("part", "phase", "mode", "use", "usage", "role"))
# Beside these a test, or a training, is an arm of a trial, or of a laboratory.
ARMS = frozenset((
    "active", "arm", "comparator", "control", "controls", "controle", "experimental", "intervention",
    "investigational", "kontrolle", "kontrollgruppe", "placebo", "retest", "sham", "temoin", "treated",
    "treatment", "usual", "vehicle",
))  # fmt: skip
RESULTS = frozenset((
    "failed", "neg", "negative", "passed", "pending", "pos", "positive", "reference", "standard",
))  # fmt: skip
AMINO_ACIDS = frozenset((
    "ala", "arg", "asn", "asp", "cys", "gln", "glu", "gly", "his", "ile", "leu", "lys", "met", "phe", "pro",
    "ser", "thr", "trp", "tyr",
))  # fmt: skip
# Words that say something else as often, unless they stand beside another or name a set or a cohort.
AMBIGUOUS = frozenset((
    "blinded", "derivation", "development", "discovery", "eval", "evaluation", "ext", "hidden", "independent",
    "int", "internal", "learn", "learning", "lern", "lernen", "replication", "te", "tr", "ts", "val", "valid",
    "verification", "verifica",
))  # fmt: skip
