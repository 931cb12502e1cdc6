"""Words that say whether an event happened.

All are compared in small letters, without accents, and with blanks for whatever stands between words. What
means one thing for overall and another for disease-specific survival, as DOC or AWD, is none of them.
"""

import re

from features.columns.spelling import without_accents
from mil.data.values import FALSE_WORDS, TRUE_WORDS

EVENTS = (
    "dead", "died", "deceased", "death", "event", "exitus", "exitus letalis", "dod", "dead of disease",
    "died of disease", "recurrence", "recurred", "relapse", "relapsed", "progression", "progressed",
    "expired", "dead of cancer", "died of cancer", "died of tumor", "died of tumour", "dead with tumor",
    "dead with tumour", "dead attributable to this cancer dx", "tumor related death",
    "tumour related death",
    "recurred progressed", "progressed recurred", "progression or recurrence", "progressive disease",
    "distant metastasis", "local recurrence",
    "verstorben", "gestorben", "tot", "ereignis", "rezidiv", "progress", "tod", "tumorbedingt verstorben",
    "am tumor verstorben", "lokalrezidiv", "rückfall",
    "décédé", "décédée", "décès", "mort", "morte", "dcd", "récidive", "rechute", "évènement", "événement",
    "fallecido", "fallecida", "muerto", "muerta", "exitus", "éxitus", "defunción", "recidiva", "recaída",
    "progresión", "evento", "muerte",
    "deceduto", "deceduta", "morto", "decesso", "ricaduta", "progressione",
    "óbito", "falecido", "falecida", "morta", "progressão", "recaída",
    "overleden", "dood", "recidief", "progressie", "gestorven",
    "avliden", "död", "død", "återfall", "kuollut", "zgon", "zmarł", "zmarła", "wznowa", "nawrót",
    "умер", "умерла", "рецидив", "прогрессирование", "смерть", "ölü", "öldü",
    "死亡", "死", "再発", "原病死", "イベント", "増悪", "复发", "復發", "进展", "已故",
    "사망", "재발",
)  # fmt: skip
NO_EVENTS = (
    "alive", "living", "censored", "ned", "no evidence of disease", "alive ned", "event free", "disease free",
    "relapse free", "recurrence free", "progression free", "no event", "no recurrence", "no relapse",
    "no progression", "not recurred", "not progressed", "no death", "diseasefree", "not dead",
    "alive no evidence of disease", "alive no evidence of disease ned", "alive or dead tumor free",
    "alive or dead tumour free", "alive or dead of other cause", "tumor free", "tumour free",
    "lost to follow up", "lost to followup", "ltfu", "lfu", "metastasis free", "censor",
    "lebt", "lebend", "am leben", "zensiert", "kein ereignis", "kein rezidiv", "rezidivfrei",
    "krankheitsfrei", "kein progress", "tumorfrei", "verlust des kontakts", "nicht verstorben",
    "vivant", "vivante", "en vie", "censuré", "perdu de vue", "perdue de vue", "pas de récidive",
    "sans récidive", "pas d évènement", "pas de progression", "vivant sans maladie",
    "vivo", "viva", "censurado", "sin recidiva", "sin recaída", "sin progresión", "libre de enfermedad",
    "sin evento", "pérdida de seguimiento",
    "vivente", "in vita", "perso al follow up", "libero da malattia", "nessuna recidiva", "nessun evento",
    "sem recidiva", "sem evento", "vivo sem doença", "sem progressão", "perda de seguimento",
    "levend", "in leven", "leeft", "geen recidief", "geen progressie", "gecensureerd",
    "levande", "lever", "levende", "i live", "elossa", "żyje", "żyjący", "жив", "жива", "без рецидива",
    "sağ", "ya\u015f\u0131yor",
    "生存", "生存中", "無再発", "打切り", "打ち切り", "存活", "未复发", "未進展", "未进展", "失访", "删失",
    "无复发", "생존", "무재발",
)  # fmt: skip


def fold_words(text: str) -> str:
    """Words in small letters without accents, with one blank between them."""
    return re.sub(r"[\W_]+", " ", without_accents(text.casefold())).strip()


# What such a word is, by the survival that is asked for.
_ALIVE = "no event of overall survival, and one of disease-free survival"
_DEAD = "an event of overall survival, and none of disease-specific survival"
EITHER = {
    **dict.fromkeys(("awd", "alive with disease", "with tumor", "with tumour", "lebt mit tumor"), _ALIVE),
    **dict.fromkeys(
        ("doc", "dead of other cause", "dead of other causes", "died of other cause", "died of other causes",
         "dead of unknown cause", "duc", "anders verstorben", "他病死"),
        _DEAD,
    ),
}  # fmt: skip
EVENT_WORDS = {
    **{fold_words(word) or word: True for word in (*(TRUE_WORDS - {"x"}), *EVENTS)},
    **{fold_words(word) or word: False for word in (*FALSE_WORDS, *NO_EVENTS)},
}
