"""How texts state, explain and refuse answers: patterns as data, in the languages that the answer checks read.

A new way to state an answer is one entry in one of these tables. English, Chinese, Japanese, German, French, Spanish,
Italian and Portuguese have entries; a text of another language is read by marks, letters and numbers alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

ANSWER_WORDS = (
    "answer", "answers", "result", "solution", "antwort", "ergebnis", "lösung", "réponse", "résultat", "respuesta",
    "resultado", "solución", "resposta", "risposta", "risultato", "答案", "正确答案", "正確答案", "答え", "正解",
    "解答",
    "回答", "答",
)  # fmt: skip
"""What an answer is called."""
SURE_WORDS = (
    "result",
    "solution",
    "ergebnis",
    "lösung",
    "résultat",
    "resultado",
    "solución",
    "risultato",
    "解答",
    "回答",
)
"""Those that also name other things: they state an answer only at the beginning of a line or after "final"."""
LINKS = (
    "is",
    "are",
    "was",
    "be",
    "equals",
    "lautet",
    "ist",
    "wäre",
    "est",
    "es",
    "é",
    "è",
    "是",
    "为",
    "為",
    "は",
    "选",
    "選",
)
"""What stands between that word and the answer, beside ``:`` and ``=``."""
NEGATIONS = (
    "not",
    "cannot",
    "can't",
    "isn't",
    "won't",
    "never",
    "nicht",
    "kein",
    "keine",
    "pas",
    "n'est",
    "non",
    "不",
    "没",
)
"""Between the two, they say that what follows is no answer."""
FINISHED = "correct|right|wrong|incorrect|not|unclear|unknown|clear|as follows|below|above|found|obtained|given"
"""What "the answer is" may be followed by without stating one."""
ABOUT = (
    "about|approximately|approx\\.?|around|roughly|nearly|exactly|simply|just|only|etwa|ungefähr|genau|"
    "environ|約|约|大约"
)
"""Words before a number that leave it what it is."""
CUES = (
    "so|thus|hence|therefore|equals?|gives|giving|makes?|making|which is|in total|altogether|total of|leaves|leaving|"
    "also|daher|insgesamt|donc|au total|por lo tanto|en total|所以|因此|一共|共|よって|合計"
)
"""Words after which a sentence comes to its result."""
BECAUSE = (
    "because|since|as it|as they|as the|given that|weil|denn|da es|parce que|puisque|car|porque|ya que|因为|なぜなら"
)
"""Words that begin a reason: an answer ends before them."""
EXPLANATION = (
    "explanation|reason|reasoning|note|notes|rationale|justification|why|erklärung|begründung|hinweis|explication|"
    "remarque|explicación|nota|解析|解释|说明|理由|説明|解説"
)
"""Headings of a part that comes after the answer."""
CHECKING = (
    "check|checking|verify|verification|verifying|double-check|double-checking|double check|to check|to verify|probe|"
    "vérification|comprobación|验证|检验|検算"
)
"""How a part begins that checks an answer given before."""
HEADINGS = (
    r"(?:\W*\d+[.)]\s+[^\W\d]|\W*(?:step|part|case|method|solution|approach|explanation|section|example|conclusion|summary|final|answer|"
    r"result|schritt|lösung|antwort|étape|paso|解|步骤|答案)\b)"
)
"""What a heading of the fourth level begins with: ``#### Step 3`` is no answer of GSM8K's form."""
NEXT_QUESTION = r"(?:question|q|problem|human|user|frage|pregunta|问题|問題)[ \t]*\d{0,3}[ \t]*[:：]"
"""How a model goes on to a question of its own after its answer (few-shot prompts teach it)."""
OPTION_WORDS = (
    "options?|choices?|letter|alternatives?|antwort|option|opción|opcion|opção|choix|réponse|选项|選項|選択肢"
)
"""What the options of a multiple-choice question are called."""
RIGHT_WORDS = (
    "correct|right|best|true|accurate|most likely|the answer|appropriate|richtig|korrekt|correcte?|correcta|correcto|"
    "exacte?|bonne|juste|正确|正確|正しい|正解|对"
)
"""What is said of the option that is chosen."""
CHOOSING = (
    "choose|choosing|chose|pick|select|selecting|go with|going with|go for|settle on|opt for|wähle|nehme|"
    "choisis|elijo|"
    "选择|選擇|应选|故选|选|選"
)
"""Verbs that choose an option."""
CONCLUDING = "hence|therefore|thus|so|daher|also|donc|por lo tanto|por tanto|所以|因此|故|よって|したがって"
"""Words that lead to the option that is chosen, where an option follows at once."""
_CHOOSE = r" (?:\w+ )?(?:pick|choose|answer|determine|decide|select|say|help|assist|provide|tell)"
NO_CHOICE = (
    "none of (?:the|these)", "neither of", "no (?:correct|right|valid|single) (?:answer|option|choice)",
    "all of the above", rf"can(?:no|')?t{_CHOOSE}", rf"can not{_CHOOSE}", rf"unable to{_CHOOSE}",
    rf"not able to{_CHOOSE}", rf"won't{_CHOOSE}", rf"will not{_CHOOSE}", rf"refuse to{_CHOOSE}",
    "not enough information", "don't know", "do not know", "keine der", "weiß (?:es )?nicht",
    r"kann (?:\w+ ){0,3}nicht", "aucune (?:des|de)", "ne (?:peux|sais) pas", "ninguna de", "no (?:puedo|sé)",
    "以上都不", "都不对", "不知道", "无法", "無法", "わかりません", "できません", "いずれでもない", "該当なし",
)  # fmt: skip
"""A refusal, or a choice of none: no letter."""
VERDICTS = (
    ("yes", "no"), ("true", "false"), ("valid", "invalid"), ("plausible", "implausible"), ("ja",
    "nein"), ("oui", "non"),
    ("sí", "no"), ("si", "no"), ("sì", "no"), ("sim", "não"), ("correct", "incorrect"), ("possible",
    "impossible"), ("even", "odd"),
    ("positive", "negative"), ("entailment", "contradiction", "neutral"), ("是", "否"), ("是", "不是"), ("对",
    "错"), ("正确", "错误"),
    ("はい", "いいえ"), ("正しい", "正しくない"),
)  # fmt: skip
"""Families of one-word answers: a gold answer is compared with the word of its family that a response states."""
COPULAS = "is|are|was|were|ist|sind|war|est|sont|es|son|fue|è|é|是|为|は"
"""Verbs after which a sentence names its answer ("The capital is Paris.")."""
NUMBER_WORDS = {
    word: value
    for value, words in enumerate(
        [
            "zero null zéro cero",
            "one eins un uno 一",
            "two zwei deux dos 二 两",
            "three drei trois tres 三",
            "four vier quatre cuatro 四",
            "five fünf cinq cinco 五",
            "six sechs seis 六",
            "seven sieben sept siete 七",
            "eight acht huit ocho 八",
            "nine neun neuf nueve 九",
            "ten zehn dix diez 十",
            "eleven elf onze once 十一",
            "twelve zwölf douze doce 十二",
            "thirteen dreizehn treize trece",
            "fourteen vierzehn quatorze catorce",
            "fifteen fünfzehn quinze quince",
            "sixteen sechzehn seize",
            "seventeen siebzehn",
            "eighteen achtzehn",
            "nineteen neunzehn",
            "twenty zwanzig vingt veinte 二十",
        ]
    )
    for word in words.split()
}
"""Numbers written as words, where they are the whole answer."""
MAGNITUDES = {
    "hundred": 100, "thousand": 1000, "million": 10**6, "millions": 10**6, "billion": 10**9, "billions": 10**9,
    "trillion": 10**12, "lakh": 10**5, "crore": 10**7, "tausend": 1000, "millionen": 10**6, "milliarde": 10**9,
    "milliarden": 10**9, "mille": 1000, "milliard": 10**9, "milliards": 10**9, "mil": 1000, "millón": 10**6,
    "millones": 10**6, "bn": 10**9, "百": 100, "千": 1000, "万": 10**4, "萬": 10**4, "億": 10**8, "亿": 10**8,
}  # fmt: skip
"""Words that multiply the number before them."""

SPOKEN_SIGNS = {
    "plus": "+", "minus": "-", "times": "×", "multiplied by": "×", "divided by": "÷", "mal": "×",
    "geteilt durch": "÷", "moins": "-",
    "fois": "×", "menos": "-", "más": "+", "por": "×",
}  # fmt: skip
"""Arithmetic in words, between two numbers."""


def word_pattern(words: str) -> str:
    r"""Return the alternatives as whole words; Chinese and Japanese ones need no space around them.

    ``\b`` sees no boundary between two of their characters, so that it is asked for beside Latin letters only.
    """
    latin = "|".join(
        word for word in words.split("|") if word[0].isascii() or (word[0].isalpha() and word[0] < "\u0250")
    )
    other = "|".join(word for word in words.split("|") if not (word[0].isascii() or word[0] < "\u0250"))
    parts = [rf"(?<![^\W\d_\u0250-\U0010ffff])(?:{latin})(?![^\W\d_\u0250-\U0010ffff])"] if latin else []
    return "(?:" + "|".join(parts + ([other] if other else [])) + ")"


_WORDS = word_pattern("|".join(w for w in ANSWER_WORDS if w not in SURE_WORDS))
_OTHER = rf"(?:(?:^|\bfinal )[\s*#_>]*{word_pattern('|'.join(SURE_WORDS))})"
ANSWER_PHRASE = re.compile(
    rf"(?:{_WORDS}|{_OTHER})(?P<between>[^\n.:=：。]{{0,40}}?)"
    rf"(?:{word_pattern('|'.join(LINKS))}(?P<link>)[\s*_:：]*|[:=：][\s*_:：=]*|[\s*_#]*\n(?=\s*\S)[\s*_]*)",
    re.IGNORECASE | re.MULTILINE,
)
"""``answer is``, ``Answer:``, a heading ``Answer``; the group ``link`` takes part where a verb states it."""
NEGATED = re.compile(word_pattern("|".join(NEGATIONS)), re.IGNORECASE)
"""A negation anywhere."""


_WINDOW = 400
"""Characters after an answer word in which its phrase ends."""
_BEFORE = 20
"""Characters before it in which "final" and Markdown marks stand."""


def beginnings(words: Iterable[str]) -> tuple[str, ...]:
    """Return the letters with which words begin, in lower case, without those that begin with others of them.

    Args:
        words: Words or patterns; of a pattern what stands before its first sign.
    """
    literal = {re.split(r".?[?*+.({\[\\]", word, maxsplit=1)[0].lower() for word in words}
    return tuple(
        sorted(one for one in literal if not any(one != other and one.startswith(other) for other in literal))
    )


def matches(pattern: re.Pattern[str], begins: tuple[str, ...], text: str) -> Iterator[re.Match[str]]:
    """Yield the matches of a pattern as ``finditer`` does, and many times as fast.

    Python tries a pattern that ignores case at every character, with all its alternatives; letters are found at once.

    Args:
        pattern: All its matches begin with one of the words.
        begins: Their :func:`beginnings`.
        text: The text.
    """
    places = _places(begins, text)
    if places is None:
        yield from pattern.finditer(text)
        return
    end = 0
    for place in places:
        if place >= end and (match := pattern.match(text, place)):
            yield match
            end = match.end()


def _places(begins: tuple[str, ...], text: str) -> list[int] | None:
    """Return where words begin in a text, in order; None where its lower case has other positions, as a few letters
    have longer ones."""
    lowered = text.lower()
    if len(lowered) != len(text):
        return None
    there = [begin for begin in begins if begin in lowered]
    return sorted(place.start() for begin in there for place in re.finditer(re.escape(begin), lowered))


def answer_phrases(text: str) -> list[re.Match[str]]:
    """Return the matches of :data:`ANSWER_PHRASE`, in order: as ``finditer``, and many times as fast on long texts."""
    places = _places(_ANSWERS, text)
    if places is None:
        return list(ANSWER_PHRASE.finditer(text))
    found: list[re.Match[str]] = []
    end = 0
    for place in places:
        if place >= end and (match := _match_around(ANSWER_PHRASE, text, max(end, place - _BEFORE), place)):
            found.append(match)
            end = match.end()
    return found


def _match_around(pattern: re.Pattern[str], text: str, least: int, place: int) -> re.Match[str] | None:
    """Return the first match that begins at a word, or before it with "final" or with white space and marks.

    Args:
        pattern: The pattern.
        text: The text.
        least: The match begins here or later.
        place: Where the word begins.
    """
    start = len(text[least:place].rstrip(_BLANK)) + least
    if text[max(least, start - 5) : start].lower() == "final":
        start -= 5
    tried = (pattern.match(text, one, place + _WINDOW) for one in range(start, place + 1))
    return next(filter(None, tried), None)


def explained_from(text: str) -> Iterator[int]:
    """Yield where explanations and checks of an answer begin in a text."""
    places = _places(_AFTER, text)
    if places is None:
        yield from (match.start() for match in AFTERWARDS.finditer(text))
        return
    end = 0
    for place in places:
        if place < end:
            continue
        first = max(end, len(text[:place].rstrip(_BLANK)))
        tried = (AFTERWARDS.match(text, start) for start in range(first, place + 1))
        if match := next(filter(None, tried), None):
            yield match.start()
            end = match.end()


def question_end(text: str, states: re.Pattern[str]) -> str:
    """Cut a text where the model goes on to a question of its own; what comes before must state an answer.

    Args:
        text: The response.
        states: What states an answer.
    """
    for match in _NEXT.finditer("\n" + text):
        before = text[: match.start()]
        if before.strip() and states.search(before):
            return before
    return text


_ANSWERS = beginnings(ANSWER_WORDS)
_AFTER = beginnings(f"{EXPLANATION}|{CHECKING}".split("|"))
_BLANK = "".join(filter(str.isspace, map(chr, range(0x3001)))) + "*#_>"
"""What may stand before the heading of an explanation: white space and the marks of Markdown."""
# A line feed and not "^": the search for a character is many times as fast.
_NEXT = re.compile(rf"\n[\s*#]*{NEXT_QUESTION}", re.IGNORECASE)
AFTERWARDS = re.compile(
    rf"(?:^[\s*#_>]*(?:{EXPLANATION})\b\W*[:：\n]|(?:^|(?<=[.!?。])[ \t]+|(?<=。))[*_]*(?:{CHECKING})\b[^.!?\n]*)",
    re.IGNORECASE | re.MULTILINE,
)
"""Where an explanation or a check begins that comes after the answer."""
