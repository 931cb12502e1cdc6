"""Names of columns that hold what is known only from the follow-up of a case, in several languages.

They are compared as plain headers without accents: days_to_death, OS_STATUS, Lokalrezidiv, datededeces.
"""

import re

_EARLIER = (
    "prior|previous|earlier|history|primary|presentation|atdiagnosis|vorherig|anamnes|frueher|fruher|anterieur"
    "|antecedent|previ[oa]|anterior|precedente|eerder"
)
_COMES_BACK = (
    "recurrences?|recurred|relapse[ds]?|rezidive?|recidiv[eoa]?|recidief|progression|progressed|progresion"
    "|progressao|progressione|progressie|rechute|recaida|ricaduta|aterfall|wznowa|nawrot|рецидив|прогресс\\w*"
)
_DATE = "(?:date|fecha|data|datum)(?:de|du|do|da|di|del|della|van)?l?"
FOLLOW_UP = re.compile(
    r"(days|months|years|time)to(?!birth|collection|sample).*|(?!birth).*daysto"
    r"|.*new(tumou?r|neoplasm)event.*"
    rf"|(?!.*({_EARLIER})).*({_COMES_BACK}).*"
    r"|.*(vitalstatus|deathdate|dateofdeath|causeofdeath|deceased)|deathfrom.*|dead|deaths?|died|alive|.*deathevent"
    r"|.*(verstorben|gestorben|sterbedatum|todesdatum|todesursache)|tod|tot|lebt|.*nachsorge.*"
    r"|last(contact|followup|known|visit|seen|alive).*|dateoflast.*|letzter?(kontakt|nachsorge).*|.*follow.?up.*"
    r"|(os|dss|dfi|dfs|pfi|pfs|rfs|efs|mfs|dmfs|lrfs|css|ttp|tte|ttr)(time|status|event|days|months|years|censor.*|cr|)"
    r"|(time|event)(time|status|days|months|years|event|censored)?|censor(ed|ing)?"
    r"|((time|date|length|duration|days|months|years)(of|on|at|in)?)?(last)?fup?((in)?(time|date|length|duration|status"
    r"|days|months?|mo|years))?"
    r"|.*surviv(al|ed|or|ors).*|.*(ueber|uber)leben.*"
    r"|tumou?rstatus|persontumou?rstatus|treatmentoutcome.*|(long|short)term(er|ers)?"
    r"|(lastknown)?diseasestatus|(clinical|patient|final)outcome|lostto.*|statusat(last|fu).*"
    r"|(disease|event|relapse|recurrence|progression|metastas[ei]s)free.*"
    # French, Spanish, Italian, Portuguese, Dutch, Scandinavian, Polish
    rf"|({_DATE})?(deces|dernieresnouvelles?|defuncion|fallecimiento|muerte|ultimocontacto|decesso|morte|obito"
    r"|overlijden|laatstecontact|dodsfall|dod|zgonu?)|ddn|survie.*|suivi.*|(statut|etat)vital|statusvital"
    r"|causededeces|decedee?|fallecid[oa]|muert[oa]|exitus|deceduto|decedut[oa]|morto|falecid[oa]|overleden"
    r"|estadovital|statovitale|statoinvita|vitalestatus|.*(supervivencia|sobrevida|sopravvivenza|overleving"
    r"|overlevnad|overlevelse|przezycie|выживаем).*|.*(seguimiento|seguimento|opvolging|наблюден).*|causademuerte"
    r"|causademorte|avliden|смерть|умер"
    # Japanese, Chinese, Korean
    r"|.*(予後|転帰|生存|死亡|再発|追跡|最終確認|随访|隨訪|转归|预后|复发|進展|进展|结局|생존|사망|재발|추적|예후).*"
)
# Behind a name: OS (months), fu [d].
UNIT_OF_TIME = re.compile(
    r"[(\[](in)?(d|days?|tagen?|w|wks?|weeks?|wochen?|m|mos?|mths?|months?|monaten?|mois|y|yrs?|years?|jahren?|ans)[)\]]$"
)
# Headers under which yes, or 1, says that the event did not happen.
_FREE = "disease|event|relapse|recurrence|progression|metastas[ei]s|tumou?r|krankheits|rezidiv|ereignis|tumor"
NO_EVENT_HEADER = re.compile(
    rf"(?:is|still|patient|status)?(?:alive|living|lives|survived|survivor|survival|censor(?:ed|ing)?|cens|ned"
    rf"|(?:{_FREE})free|(?:{_FREE})frei|free|remission|lebt(?:noch)?|lebend|amleben|leben|uberlebt|uberleben"
    "|zensiert|vivante?|envie|survie|survecu|censure|viv[oa]|vivos|sobrevive|sobrevivio|sobrevida|supervivencia"
    "|supervivio|vivente|invita|sopravvissut[oa]|sopravvivenza|levend|inleven|leeft|overleefd|levande|lever|ilive"
    "|zyje|жив|生存|存活|생존)(?:status|yn|flag|indicator)?"
)
# Headers of registries, some of which write 1 for alive (NCDB, SEER) and some 1 for dead.
VITAL_HEADER = re.compile(
    "(?:puf)?(?:patient)?(?:vital|lebens|overlevings)(?:e|er)?status(?:recode)?.*|(?:estado|stato|statut|status)vital(?:e)?"
    "|statoinvita|lifestatus|survivalstatus|survstatus|(?:dead|death)?alive(?:dead|death)|(?:dead|death)(?:or)?alive"
    "|aliveordead|生死|生存状态|生存状態|転帰"
)
