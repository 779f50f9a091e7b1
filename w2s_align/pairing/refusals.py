"""How refusals begin, in English, German, French, Spanish, Chinese and Japanese, and what only looks like one.

Only beginnings, because a helpful response may say later what it cannot do. A refusal says that the writer will not do
a task of an assistant ("I can't help with"), so that "I can't wait to" is none; it may come after a polite word or a
reason, in a clause of its own. What begins with a quotation or as a letter is none. Error rates on labelled and on
unseen texts: docs/methods/data_filters.md. Responses in other languages are never flagged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

BEGINNING = 250
"""Characters in which a refusal has begun: a polite sentence and the refusal itself."""


def _any(*patterns: str) -> str:
    return f"(?:{'|'.join(patterns)})"


_ADVERB = (
    r"(?:(?:really|actually|directly|ethically|legally|safely|in good (?:conscience|faith),?|personally|just|simply|"
    r"ever|possibly|currently|in any way|also|still|either|be able to|be|(?:and|or) (?:will not|won't)) )*"
)
_TASKS = _any(
    "help", "assist", "provid[ei]", r"do\b", "comply", "fulfil", "answer", "creat[ei]", "writ[ei]", "generat[ei]",
    "giv[ei]", "offer", "shar[ei]", "support", "engage", "participate", "take part", "discuss", "continue", "complete",
    "produc[ei]", "recommend", "advis[ei]", "describ[ei]", "explain", r"say\b", "tell", "talk about", "comment on",
    "make", "show", "access", "browse", "open", "view", "look at", "process", "respond", "accommodate", "condone",
    "promote", "encourage", "facilitate", "be part", "perform", "translate", "satisfy", "be of", "teach", "list",
    "suggest", "endorse", "disclose", "reveal", "role-?play", "pretend", "impersonate", "imitate", "send", "book",
    "place", "hand out", "see (?:the |your |any )?(?:image|picture|photo|file|attach|screen)",
    "watch", "look up", "verify", "diagnose", "predict", "judge", "guide", "carry out", "grant", "allow",
    "proceed", "summarize", "express", "bypass", "go along", "go (?:there|ahead)", "have", "with",
)  # fmt: skip
"""What an assistant is asked to do."""
_NOT = _any(
    r"(?:i|we) (?:really |simply |just |truly |also |still |therefore )?"
    r"(?:can't|cannot|can not|won't|will not|shouldn't|should not)",
    r"(?:i am|we are|i'm|we're) (?:really |simply |just |also |still )?"
    r"(?:unable|not (?:able|going|allowed|permitted|willing|prepared|here|in a position|designed|programmed|built|"
    r"meant)) to",
    r"i (?:was|have been) not (?:designed|programmed|built|meant|made|trained) to",
    r"(?:there is|there's) no way (?:that )?i (?:can|could|will|would)",
    r"i have no (?:way|ability|means) to",
)
_CANNOT = rf"{_NOT}\*{{0,2}} {_ADVERB}{_TASKS}"
_SORRY = _any(
    r"(?:i'm|i am) (?:(?:really|very|truly|so|deeply|terribly) )?sorry",
    "sorry",
    "(?:my )?apologies",
    "i (?:do )?apologi[sz]e",
    "(?:i'm|i am) afraid",
    "unfortunately",
    "regrettably",
    r"i (?:deeply |truly )?regret",
)
_THAT = _any("this", "that", "it", "your request", "the request", "what you(?:'re| are)? ask(?:ing)?(?: for)?")
"""What was asked."""
_MY = r"(?:my|our|the) (?:\w+ )?(?:polic|guideline|programming|principle|value|rules|terms|instructions|law\b)"
_SAYS_NO = _any(
    r"i (?:\w+ly )?(?:decline|refuse)(?: to| that| this| your| the request|[.,!;]|$)",
    r"i(?: must| need to| have to|'ll have to| will have to| am going to(?: have to)?|'m going to(?: have to)?|"
    r"'d like to)(?: \w+ly)? (?:decline|refuse)"
    r"(?:$|[.,!;]| to (?:help|answer|assist|do|write)| this| that| your| the request)",
    r"my (?:\w+ )?(?:polic(?:y|ies)|guidelines|programming|principles|rules|instructions|training) (?:\w+ )?(?:don't|"
    r"do not|does not|doesn't|forbids?|prohibits?|prevents?|keeps?) ",
    r"i (?:can|will) have no part",
    r"(?:i )?(?:can't|won't) do that[.!]",
)
_DECLINE = _any(
    r"(?:i|we) (?:don't|do not) (?:condone|support|promote|encourage|engage in|assist with)",
    r"i (?:don't|do not) (?:provide|create|generate|do (?:medical|legal|financial))",
    r"i (?:don't|do not) feel right",
    r"(?:i|we) (?:don't|do not) have (?:access to|the ability|real-?time|(?:personal )?(?:opinions|feelings|beliefs))",
    r"(?:it|that|this) (?:would be|is|wouldn't be|would not be|isn't) (?:unethical|illegal|inappropriate|wrong|right|"
    r"appropriate|ethical|legal|not (?:appropriate|ethical|legal|right|okay)) "
    r"(?:of me|for me|to (?:help|assist|provide|give|write|make))",
    _SAYS_NO,
    r"i(?:'ll| will| am going to|'m going to| must| need to)? ?(?:have to |need to )?(?:say no\b|"
    r"turn (?:this|that|it|you) (?:one )?down|pass(?:\.|!| on (?:this|that|it)))",
    r"(?:i am|i'm|i do not feel|i don't feel) (?:not )?comfortable "
    r"(?:with|writing|doing|help|shar|provid|creat|generat|discuss|answer|giv|mak)",
    r"(?:i'd|i would) (?:rather|prefer) not(?: to)?(?: (?:go|do|say|answer|write|discuss|help)\b|[.,!])",
    rf"i (?:don't|do not) (?:think|believe|feel) (?:that )?i (?:should|can|could) {_TASKS}",
    r"(?:i think )?it(?:'s| is|'d be| would be) best (?:if i (?:don't|do not)|that i (?:don't|do not)|not to "
    r"(?:answer|discuss|go))",
    r"(?:i am|i'm) (?:programmed|designed|trained|made|built) (?:not )?to be (?:harmless|safe|helpful and (?:harmless|"
    r"safe))",
    rf"(?:{_THAT}(?:'s| is)?|this goes|your request goes|that goes) (?:goes )?against {_MY}",
    rf"(?:{_THAT}|this request) (?:is|isn't|is not|'s not|'s) (?:not )?(?:something|a request|a thing|a task) "
    r"(?:that |which )?(?:i|we) (?:can|cannot|can't|am|'m|will|won't|have to|must|could|would)\b",
    rf"{_THAT} (?:falls|is|goes|lies) (?:outside|beyond)(?: of)? (?:of )?(?:my|what i)\b",
    rf"{_THAT}(?:'s| is|isn't| is n't) (?:not )?(?:possible|something possible) for me\b",
    r"i (?:really |simply |just )?(?:can't|cannot|can not|won't|will not)(?:\.|!|$)",
    r"(?:that|this|it)(?:'s| is) not something (?:that )?i (?:can|am able|'m able)",
)
_POLITE = (
    r"(?:(?:hi|hello|hey|thanks|thank you|no|please|i (?:understand|appreciate|see|know|hear|wish))\b[^.!?\n]{0,100}"
    r"[.!,;]\s*(?:but |however,? |that said,? |still,? )?){0,2}"
)
_IDENTITY = (
    r"(?:ai|artificial intelligence|(?:large )?language model)(?: (?:(?:large )?language )?(?:model|assistant|system|"
    r"chatbot))?"
)
_ENGLISH = (
    _CANNOT,
    _DECLINE,
    rf"{_SORRY}\b[^.\n]{{0,100}}?\b{_CANNOT}",
    rf"{_SORRY}[.,!]?\s+{_CANNOT}",
    rf"{_SORRY}[,.!]? (?:but )?(?:{_DECLINE}|no\b|not\b)",
    rf"{_SORRY},? (?:but )?(?:{_THAT}(?:'s| is| isn't|,)|this (?:request )?(?:is|falls|goes))",
    rf"{_SORRY},? but (?:i|that|this|your|the request|we|my|as)\b",
    rf"{_SORRY} (?:that )?i (?:(?:have to|must) (?:say no|decline|refuse)|(?:can't|cannot) (?:do|go))",
    rf"as an? {_IDENTITY}(?:[,.]| i\b| my\b|$)",
    rf"as (?:an?|your) (?:[\w-]+ )?(?:{_IDENTITY}|assistant|chatbot)[^.\n]{{0,60}}?\b(?:{_CANNOT}|{_DECLINE})",
    rf"being an {_IDENTITY}, i",
    rf"i(?:'m| am) (?:just|only|simply|merely) an? {_IDENTITY}",
)
_CLAUSE = r"(?:[.!?,;:]|—| -)\s+(?:(?:but|and|so|therefore|thus|hence|however),?\s+)*(?:therefore,? |please )?"
"""What stands before a clause of its own."""
_LATER_TASKS = _any(
    "help", "assist", "comply", "fulfil", "support", "condone", "encourage", "participate", "take part", "provide",
    "write", "create", "generate", "produce", "share", "answer", "discuss", "engage", "continue", "access", "look at",
    "bypass", "tell you", "give you", "do (?:that|this|it)\\b", "guide", "facilitate", "promote",
)  # fmt: skip
"""What is a refusal also behind a reason or a polite word; "we cannot say" there belongs to an explanation."""
LATER = rf"(?i){_CLAUSE}(?:{_NOT} {_ADVERB}{_LATER_TASKS}|{_SAYS_NO})|" + _any(
    r"\bis something (?:that )?i (?:will not|won't|cannot|can't)\b",
    r"(?:isn't|is not) something (?:that )?i(?:'m| am) able",
)
"""A later clause of the beginning says no to what was asked, after a reason or a polite word."""
_OTHERS = (
    # German
    r"(?:es )?tut mir (?:sehr )?leid,? (?:aber )?(?:ich|das (?:kann|darf|ist)|dabei|diese|bei|dazu|hier)\b",
    r"entschuldigung,? (?:aber )?(?:ich|das|dabei|diese|bei|dazu|hier)\b[^.\n]{0,80}\b(?:nicht|keine)",
    r"(?:leider|das|dabei|diese[nrms]? (?:anfrage|bitte|wunsch|frage)|dazu|hierbei) (?:kann|darf|möchte|werde) ich\b"
    r"[^.\n]{0,100}\b(?:nicht|keine)",
    r"(?:dabei|dazu|hierbei) (?:helfe|unterstütze) ich[^.\n]{0,30}\b(?:nicht|keine)",
    r"ich (?:muss|möchte) (?:diese|ihre|deine|die) (?:anfrage|bitte)\b[^.\n]{0,30}ablehnen",
    r"ich (?:möchte|will) (?:dazu|dabei|hier|das|ihnen|dir)\b[^.\n]{0,60}\b(?:nicht|keine)",
    r"(?:entschuldig|verzeih)[^.\n]{0,60}\b(?:helfe|unterstütze|schreibe|gebe) ich (?:nicht|keine)",
    r"ich (?:kann|darf|werde) (?:dir|ihnen|euch|das|diese[rnms]?|bei|dabei|leider|hier|auf)\b[^.\n]{0,80}"
    r"\b(?:nicht|keine)",
    r"ich (?:kann|darf|werde) keine",
    r"da(?:zu|bei) (?:kann|darf|möchte) ich (?:leider )?(?:nichts|nicht|keine)",
    r"als (?:ki\b|künstliche intelligenz|sprachmodell)",
    # French
    r"(?:je suis (?:vraiment )?)?désolée?,? (?:mais )?"
    r"(?:je ne|cela|ce n|cette demande|votre demande|il m'est impossible)",
    r"je ne (?:peux|puis|suis) (?:malheureusement )?pas (?:en mesure|vous (?:aider|fournir|donner|assister)|t'aider|"
    r"aider|fournir|répondre|donner|écrire|faire|créer|générer|partager|satisfaire|accéder|participer|traiter)",
    r"(?:je regrette,? (?:mais )?)?il m'est impossible (?:de|d')",
    r"je (?:dois|préfère) (?:refuser|décliner|ne pas)",
    r"en tant qu'(?:ia|intelligence artificielle)\b",
    # Spanish
    r"lo siento,? (?:pero )?no\b",
    r"(?:me temo que|lamentablemente,?|desafortunadamente,?) (?:no puedo|no me es posible)",
    r"lamento (?:mucho )?no poder",
    r"(?:eso|esto) va en contra de mis",
    r"(?:non,? )?je refuse d",
    r"no me es posible (?:ayudar|proporcionar|hacer|generar|responder|crear|dar)",
    r"no puedo (?:ayudar|proporcionar|hacer|cumplir|responder|crear|asistir|dar)",
    r"como (?:ia|inteligencia artificial|modelo de lenguaje)\b",
    # Chinese
    r"(?:很|非常|真的)?(?:抱歉|对不起|對不起|不好意思)[，,。！]?[^。！？\n]{0,30}?(?:无法|不能|不会|不可以|拒绝|無法|不便)",
    r"[^。！？\n]{0,30}?我(?:无法|不能|不便|無法|拒绝)(?:为|提供|帮|幫|回答|协助|满足|生成|写|给|讨论|支持|执行|完成)",
    r"我不会(?:帮|幫|为你|协助|提供)",
    r"(?:很|非常)?(?:抱歉|对不起)[，,][^。！？\n]{0,20}违反",
    r"作为(?:一个|一名|一款)?(?:ai|人工智能|语言模型|大语言模型)",
    # Japanese
    r"(?:大変)?(?:申し訳(?:ありません|ございません|ないです)|すみません|ごめんなさい)[^。\n]{0,60}?"
    r"(?:でき(?:ません|かねます)|お答えでき|いたしかね|お手伝いでき)",
    r"恐れ入りますが[^。\n]{0,60}?(?:でき(?:ません|かねます)|いたしかね)",
    r"(?:申し訳(?:ありません|ございません)|すみません)。[^。\n]{0,60}?でき(?:ません|かねます)",
    r"(?:その|この)?(?:ご)?(?:要望|質問|依頼|リクエスト)には[^。\n]{0,20}(?:でき|応え)",
    r"[^。\n]{0,40}?(?:提供|お手伝い|お答え|回答|対応|協力|支援|作成|生成)(?:することは)?(?:でき(?:ません|かねます)|いたしかね)",
    r"[^。\n]{0,40}?控えさせて(?:いただき|頂き)",
    r"(?:私は)?ai(?:なので|ですので|として|であるため)",
)
_START = r"^[^\w\"“”«„「『']*"
"""A text that begins with a quotation tells what somebody else says."""
REFUSALS = (rf"(?i){_START}{_POLITE}{_any(*_ENGLISH)}", rf"(?i){_START}{_any(*_OTHERS)}")
"""A text that begins like one of these refuses. Two expressions: as one they exceed the size up to which polars' regex
library is fast, and take thirty times as long."""
_MADE = "made|misread|misunderstood|mistyped|was wrong|should have|previous|earlier|last|mistake|meant|forgot"
_HARMLESS = (
    "help (?:but|thinking|wondering|feeling|noticing|laughing|smiling|myself)",
    "say (?:i\\b|that|enough|for (?:sure|certain)|(?:this|it|that) (?:often|enough)|no\\b)",
    "tell (?:you how|whether|if|anyone|them|him|her)",
    r"recommend [^.\n]{1,60} enough",
    "have (?:any |a )?(?:doubt|problem|issue|objection|much time|enough|to\\b)",
    "make (?:out|heads|it\\b)",
    r"do (?:all|each|every|any better|\d+|without|this alone|it alone|it without|math)",
    r"tell a (?:lie|joke)",
    "give (?:up|enough|in)",
    "show (?:off|up)",
    "explain (?:how|why) (?:happy|much|i)",
    "open (?:my|the (?:door|jar|window))",
    "describe how",
    "(?:give|provide|tell you|say|offer) (?:you )?(?:an? |the )?(?:exact|precise|definite|complete)",
    "(?:tell|say|verify) (?:from|apart|which|exactly)",
    r"recommend the (?:first|second|last|other|former|latter)",
    r"do \S+ is\b",
)
NO_REFUSAL = rf"(?i){_START}{_POLITE}" + _any(
    rf"(?:{_SORRY},? (?:but )?)?{_NOT} {_ADVERB}{_any(*_HARMLESS)}",
    "i refuse to (?:believe|accept|give up|think)",
    r"we (?:do not|don't) (?:provide|create|generate|support)",
    rf"{_SORRY} (?:to hear|for (?:the|your|any|my|that)|about|if)\b",
    rf"{_SORRY},? (?:but )?(?:i|my) (?:{_MADE})",
    r"as an ai\b[^.\n]{0,60}(?:i (?:can help|can certainly|am happy|would be happy|am glad)|i'm (?:happy|glad))",
)
"""Beginnings that only look like refusals."""
LATER_HARMLESS = rf"(?i){_CLAUSE}{_NOT} {_ADVERB}{_any(*_HARMLESS)}"
NEGATIONS = (
    "n't", "cannot", "not ", "unable", "no way", "have no ", "no part", "decline", "refuse", "forbid", "prohibit",
    "prevent", "keep",
)  # fmt: skip
"""Every match of :data:`LATER` has one of them."""
QUOTING = r"^\s*[\"“«„「『]|(?i)^\W*(?:dear|subject:|hi \w+,|to whom)"
"""Beginnings of a quotation and of a letter: what is refused there, somebody else refuses."""


def refuses(texts: pl.Series) -> pl.Series:
    """Say which texts begin with a refusal; apostrophes must be straight."""
    begin = texts.str.slice(0, BEGINNING)
    found = (begin.str.contains(REFUSALS[0]) | begin.str.contains(REFUSALS[1])) & ~begin.str.contains(NO_REFUSAL)
    some = begin.str.contains_any(list(NEGATIONS), ascii_case_insensitive=True).fill_null(False)
    if not some.any():
        return found
    few = begin.filter(some)  # a search in the middle of a text takes long: few texts need it
    later = few.str.contains(LATER) & ~few.str.contains(QUOTING) & ~few.str.contains(LATER_HARMLESS)
    return found.scatter(some.arg_true(), found.filter(some) | later)
