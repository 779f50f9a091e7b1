"""The audit page in a real headless Chromium: complete, in words, hostile text stays text, nothing is asked for."""

import dataclasses
import re

import pytest
from browser import CHROMIUM, DRIVER, Browser

from w2s_align.interchange import import_pairs
from w2s_align.pairing import Filters, best_worst, model_order
from w2s_align.records import Prompt, Response, Score, to_table
from w2s_align.reporting.audit_page import AuditPage, PairSample, render_audit_page, write_audit_page

HOSTILE = (
    "</title></style><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> & &lt;"
)
NEEDS_BROWSER = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed (apt-get install chromium-driver)"
)


def page_of(pairs, name="pairs", gold=None):
    audit = pairs.audit(gold, {"org/weak": "cc-by-nc-4.0"})
    return AuditPage.of(name, audit.to_json(), pairs.table, pairs.lengths, pairs.counts.totals())


@pytest.fixture(scope="module")
def hostile():
    """Pairs whose every text, name and reason is an attack, with gold, scores, leaks and drops."""
    unique = [" ".join(f"w{i}x{k}" for k in range(40)) for i in range(40)]
    prompts = to_table([Prompt.of(f"{words} {HOSTILE}", task=f"task {HOSTILE}") for words in unique], Prompt)
    ids = prompts["id"].to_pylist()
    models = ("org/weak", f"model {HOSTILE}")
    rows = [
        Response(one, 0, model, f"{'long ' * (9 - 4 * side)}{number} {HOSTILE}", completion_tokens=9 - 4 * side)
        for number, one in enumerate(ids)
        for side, model in enumerate(models)
    ]
    rows[0] = dataclasses.replace(rows[0], text=f"I'm sorry, but I cannot. {HOSTILE}")
    responses = to_table(rows, Response)
    values = {models[0]: 5.0, models[1]: 2.0}
    scores = to_table(
        [Score(r.prompt_id, 0, r.model, "s", values[r.model] + i % 7) for i, r in enumerate(rows)], Score
    )
    gold = to_table([Score(r.prompt_id, 0, r.model, "g", float(i % 3 == 0)) for i, r in enumerate(rows)], Score)
    sets = {f"set {HOSTILE}": [f"{unique[1]} {HOSTILE}", "an item that is in none of all these prompts"]}
    pairs = best_worst(responses, scores, prompts, filters=Filters(refusal=True), evaluations=sets)
    return page_of(pairs, f"pairs {HOSTILE}", gold)


@pytest.fixture(scope="module")
def opened(hostile, tmp_path_factory):
    path = write_audit_page(hostile, tmp_path_factory.mktemp("audit") / "audit.html")
    with Browser() as browser:
        browser.open(path)
        yield browser, browser.requests(), browser.console(), path


def texts(browser, selector):
    return browser.run("return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", selector)


@NEEDS_BROWSER
def test_nothing_is_asked_of_any_network_and_no_error_is_logged(opened):
    _, requests, console, path = opened
    assert requests == [path.as_uri()]
    assert console == []


@NEEDS_BROWSER
def test_hostile_text_is_text_everywhere(opened):
    browser, *_ = opened
    assert browser.run("return document.title").startswith(f"pairs {HOSTILE}: audit of ")
    assert browser.run("return document.querySelectorAll('img, script').length") == 0
    assert HOSTILE in texts(browser, ".sample h3")[0]
    assert all(HOSTILE in text for text in texts(browser, ".answer pre"))
    assert any(HOSTILE in text for text in texts(browser, "#content th"))
    assert any(HOSTILE in text for text in texts(browser, "details.dropped pre"))
    assert any(HOSTILE in text for text in texts(browser, "#leaks th"))


@NEEDS_BROWSER
def test_the_page_says_what_there_is_to_know(opened, hostile):
    browser, *_ = opened
    assert re.fullmatch(r"38 pairs with a mean delta of \+\d\.\d+", texts(browser, "h1")[0])
    lede = re.sub(r"\s+", " ", texts(browser, "#summary")[0])
    assert re.search(r"The longer response is chosen in \d+(\.\d)? % of pairs", lede)
    assert re.search(r"Of the pairs with exactly one right answer, \d+(\.\d)? % are in the wrong order", lede)
    warnings = [re.sub(r"\s+", " ", text) for text in texts(browser, ".caveats li")]
    assert warnings == [re.sub(r"\s+", " ", text) for text in hostile.audit["warnings"]]
    assert any("length may be what is learned" in warning for warning in warnings)
    assert any("Not for commercial use" in warning for warning in warnings)
    assert "cc-by-nc-4.0" in texts(browser, "#licenses td")
    assert len(texts(browser, ".sample")) == 8 + 3 * 3
    assert browser.run("return document.querySelectorAll('figure svg').length") == 2
    reasons = texts(browser, "details.dropped summary")
    assert [" ".join(reason.split()) for reason in reasons] == [
        f"{name} {entry['rows']}" for name, entry in hostile.audit["dropped"].items()
    ]


@NEEDS_BROWSER
@pytest.mark.parametrize("width", [1280, 390])
def test_no_width_scrolls_sideways_and_text_has_contrast_in_light_and_dark(opened, width):
    browser, *_ = opened
    for scheme in ("light", "dark"):
        browser.look(width, 900, scheme)
        assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
        ground, ink = browser.run(
            "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color].map(c => "
            "c.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0))"
        )
        assert abs(ground - ink) > 400


def test_no_pairs_at_all_have_a_page():
    prompts = to_table([Prompt.of("q")], Prompt)
    nothing = to_table([], Response)
    assert "<h1>0 pairs</h1>" in render_audit_page(page_of(model_order(nothing, nothing, prompts)))


def test_pairs_without_scores_gold_or_drops_have_a_page():
    rows = [{"prompt": "q", "chosen": "a", "rejected": "b"}]
    html = render_audit_page(page_of(import_pairs(rows)))
    assert "<h1>1 pairs</h1>" in html and "Nothing was dropped." in html
    assert "No gold answers were given." in html and "nan" not in html.lower().replace("finance", "")


def test_many_sources_become_one_line_and_long_texts_are_cut():
    prompts = to_table([Prompt.of(f"p{i}") for i in range(50)], Prompt)
    ids = prompts["id"].to_pylist()
    weak = to_table([Response(one, 0, f"w{i}", "x" * 9000) for i, one in enumerate(ids)], Response)
    weaker = to_table([Response(one, 0, "v", "y") for one in ids], Response)
    html = render_audit_page(page_of(model_order(weak, weaker, prompts)))
    assert "21 others" in html and "w49 &gt; v" not in html
    assert "[5,000 more characters]" in html


def test_without_matplotlib_the_page_says_so(monkeypatch):
    monkeypatch.setattr("w2s_align.reporting.audit_page.find_spec", lambda name: None)
    html = render_audit_page(page_of(import_pairs([{"prompt": "q", "chosen": "a", "rejected": "b"}])))
    assert "The drawing needs matplotlib" in html and "<svg" not in html


def test_turns_of_a_long_chat_are_named():
    chat = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "and?"},
    ]
    row = {"prompt": chat, "chosen": "a", "rejected": "b", "chosen_score": 2, "rejected_score": 1}
    page = page_of(import_pairs([row]))
    (samples,) = page.samples.values()
    assert samples == [
        PairSample(
            "system: be kind\n\nuser: hi\n\nassistant: hello\n\nuser: and?",
            "a",
            "b",
            "unknown, 1 characters, score 2",
            "unknown, 1 characters, score 1",
        )
    ]
    assert page.drawn.deltas == [1.0]
