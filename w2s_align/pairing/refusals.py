"""How refusals begin, in English, German, French, Spanish, Chinese and Japanese, and what only looks like one.

Only beginnings, because a helpful response may say later what it cannot do. A refusal says that the writer will not do
a task of an assistant ("I can't help with"), so that "I can't wait to" is none. Error rates on a labelled set:
docs/methods/data_filters.md. Responses in other languages are never flagged.
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
    r"(?:(?:really|actually|directly|ethically|legally|safely|in good conscience,?|personally|just|simply|ever|"
    r"possibly|currently|be able to|be) )*"
)
_TASKS = _any(
    "help", "assist", "provid[ei]", r"do\b", "comply", "fulfil", "answer", "creat[ei]", "writ[ei]", "generat[ei]",
    "giv[ei]", "offer", "shar[ei]", "support", "engage", "participate", "discuss", "continue", "complete",
    "produc[ei]", "recommend", "advis[ei]", "describ[ei]", "explain", r"say\b", "tell", "make", "show", "access",
    "browse", "open", "view", "process", "respond", "accommodate", "condone", "promote", "encourage", "facilitate",
    "be part", "perform", "translate", "satisfy", "be of", "teach", "list", "suggest", "endorse", "disclose",
    "reveal", "role-?play", "pretend", "impersonate", "imitate", "send", "book", "watch", "look up", "verify",
    "diagnose", "predict", "guide", "carry out", "grant", "allow", "proceed", "summarize", "go into", "express",
    "have", "with",
)  # fmt: skip
"""What an assistant is asked to do."""
_NOT = _any(
    r"(?:i|we) (?:can't|cannot|can not|won't|will not|shouldn't|should not)",
    r"(?:i am|we are|i'm|we're) (?:unable|not able|not going|not allowed|not permitted) to",
)
_CANNOT = rf"{_NOT}\*{{0,2}} {_ADVERB}{_TASKS}"
_SORRY = _any(
    r"(?:i'm|i am) (?:(?:really|very|truly|so|deeply) )?sorry",
    "sorry",
    "(?:my )?apologies",
    "i (?:do )?apologi[sz]e",
    "(?:i'm|i am) afraid",
    "unfortunately",
    "regrettably",
)
_DECLINE = _any(
    r"(?:i|we) (?:don't|do not) (?:provide|condone|support|promote|encourage|engage in|assist with|create|generate)",
    r"(?:i|we) (?:don't|do not) have (?:access to|the ability|real-?time|(?:personal )?(?:opinions|feelings))",
    r"(?:it|that|this) (?:would be|is) (?:unethical|illegal|inappropriate|not (?:appropriate|ethical|legal))"
    r" (?:of me|for me|to (?:help|assist|provide|give|write))",
    r"i (?:must|have to|need to|will have to|am going to have to)(?: \w+ly)? (?:decline|refuse)",
    r"i(?: \w+ly)? (?:decline|refuse)",
    r"(?:i am|i'm) not comfortable",
    r"i (?:don't|do not) feel comfortable",
    "i'd rather not",
    r"(?:i am|i'm) (?:programmed|designed|trained) (?:not )?to be (?:harmless|safe|helpful and harmless)",
    rf"(?:{_SORRY},? (?:but )?)?(?:(?:this|that|it)(?:'s| is)|this goes|your request (?:is|goes)) against "
    r"(?:my|our|the) (?:polic|guideline|programming|principle|values|rules|terms)",
    r"(?:this|that|your|this request) is something (?:that )?i (?:can't|cannot|won't|will not|have to|must)\b",
    r"i (?:can't|cannot|can not|won't|will not)(?:\.|!|$)",
    r"(?:that|this|it)(?:'s| is) not something (?:that )?i (?:can|am able|'m able)",
)
_POLITE = (
    r"(?:(?:hi|hello|hey|thanks|thank you|i (?:understand|appreciate|see|know|hear))\b[^.!?\n]{0,100}[.!,;]\s*"
    r"(?:but |however,? )?)?"
)
_ENGLISH = (
    _CANNOT,
    _DECLINE,
    rf"{_SORRY}\b[^.\n]{{0,100}}?\b{_CANNOT}",
    rf"{_SORRY}[.,!]?\s+{_CANNOT}",
    rf"{_SORRY}[,.!]? (?:but )?(?:{_DECLINE}|no\b|not\b)",
    rf"{_SORRY},? but (?:i|that|this|your|the request|we|my|as)\b",
    r"as an? (?:(?:ai|artificial intelligence|(?:large )?language model)(?: (?:(?:large )?language )?"
    r"(?:model|assistant|system|chatbot))?)(?:[,.]| i\b| my\b|$)",
)
_OTHERS = (
    # German
    r"(?:es )?tut mir (?:sehr )?leid,? (?:aber )?(?:ich|das (?:kann|darf|ist)|dabei|diese|bei|dazu|hier)\b",
    r"entschuldigung,? (?:aber )?(?:ich|das|dabei|diese|bei|dazu|hier)\b[^.\n]{0,80}\b(?:nicht|keine)",
    r"(?:leider|das|dabei) (?:kann|darf|möchte|werde) ich\b[^.\n]{0,100}\b(?:nicht|keine)",
    r"ich (?:kann|darf|werde) (?:dir|ihnen|euch|das|diese[rnms]?|bei|dabei|leider|hier|auf)\b[^.\n]{0,80}"
    r"\b(?:nicht|keine)",
    r"ich (?:kann|darf|werde) keine",
    r"da(?:zu|bei) (?:kann|darf|möchte) ich (?:leider )?(?:nichts|nicht|keine)",
    r"als (?:ki\b|künstliche intelligenz|sprachmodell)",
    # French
    r"(?:je suis (?:vraiment )?)?désolée?,? (?:mais )?(?:je ne|cela|ce n)",
    r"je ne (?:peux|puis|suis pas en mesure)\b",
    r"en tant qu'(?:ia|intelligence artificielle)\b",
    # Spanish
    r"lo siento,? (?:pero )?no\b",
    r"no puedo (?:ayudar|proporcionar|hacer|cumplir|responder|crear|asistir|dar)",
    r"como (?:ia|inteligencia artificial|modelo de lenguaje)\b",
    # Chinese
    r"(?:很|非常|真的)?(?:抱歉|对不起|對不起|不好意思)[，,。！]?[^。！？\n]{0,30}?(?:无法|不能|不会|不可以|拒绝|無法|不便)",
    r"我(?:无法|不能|不便|無法|拒绝)(?:为|提供|帮|幫|回答|协助|满足|生成|写|给|讨论|支持|执行|完成)",
    r"作为(?:一个|一名|一款)?(?:ai|人工智能|语言模型|大语言模型)",
    # Japanese
    r"(?:大変)?(?:申し訳(?:ありません|ございません|ないです)|すみません|ごめんなさい)[^。\n]{0,60}?"
    r"(?:でき(?:ません|かねます)|お答えでき|いたしかね|お手伝いでき)",
    r"恐れ入りますが[^。\n]{0,60}?(?:でき(?:ません|かねます)|いたしかね)",
    r"(?:申し訳(?:ありません|ございません)|すみません)。[^。\n]{0,60}?でき(?:ません|かねます)",
    r"(?:その|この)?(?:ご)?(?:要望|質問|依頼|リクエスト)には[^。\n]{0,20}(?:でき|応え)",
)
REFUSAL = rf"(?i)^\W*(?:{_POLITE}{_any(*_ENGLISH)}|{_any(*_OTHERS)})"
"""A text that begins like this refuses."""
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
)
NO_REFUSAL = rf"(?i)^\W*{_POLITE}" + _any(
    rf"(?:{_SORRY},? (?:but )?)?{_NOT} {_ADVERB}{_any(*_HARMLESS)}",
    "i refuse to (?:believe|accept|give up|think)",
    r"we (?:do not|don't) (?:provide|create|generate|support)",
    rf"{_SORRY} (?:to hear|for (?:the|your|any|my|that)|about|if)\b",
    rf"{_SORRY},? (?:but )?(?:i|my) (?:{_MADE})",
    r"as an ai\b[^.\n]{0,60}(?:i (?:can help|can certainly|am happy|would be happy|am glad)|i'm (?:happy|glad))",
)
"""Beginnings that only look like refusals."""


def refuses(texts: pl.Series) -> pl.Series:
    """Say which texts begin with a refusal; apostrophes must be straight."""
    begin = texts.str.slice(0, BEGINNING)
    return begin.str.contains(REFUSAL) & ~begin.str.contains(NO_REFUSAL)
