"""The page in a real headless Chromium: no errors, no requests, filters and search work, hostile text stays text."""

import dataclasses
import re
import time

import pytest
from browser import NEEDS_BROWSER, Browser
from simulated_report import report_data

from w2s_align.reporting import Answer, Sample, write_report

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"><!-- & &lt;"


def hostile_sample(arms):
    answers = [Answer(arm, HOSTILE, 0.0, HOSTILE) for arm in arms[:-1]] + [Answer(arms[-1], None, None, "", "error")]
    return Sample("hostile", f"needle {HOSTILE}", HOSTILE, answers)


@pytest.fixture(scope="module")
def data():
    made = report_data()
    arms = [arm.name for arm in made.results.arms]
    return dataclasses.replace(
        made,
        title=f"quickstart {HOSTILE}",
        recipe=f"{made.recipe}# {HOSTILE}\n",
        samples=[hostile_sample(arms), *made.samples],
        warnings=[*made.warnings, HOSTILE],
    )


@pytest.fixture(scope="module")
def report(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    write_report(data, out)
    return out / "report.html"


@pytest.fixture(scope="module")
def opened(report):
    with Browser() as browser:
        browser.open(report)
        requests = browser.requests()
        yield browser, requests, browser.console()


def texts(browser, selector):
    return browser.run("return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", selector)


def search(browser, words):
    browser.run(
        "const s = document.getElementById('samples-search'); s.value = arguments[0];"
        "s.dispatchEvent(new Event('input'))",
        words,
    )
    time.sleep(0.3)  # the search waits for typing to pause


def choose(browser, outcome):
    browser.run("document.querySelector(`[data-outcome='${arguments[0]}']`).click()", outcome)


@NEEDS_BROWSER
def test_nothing_is_asked_of_any_network_and_no_error_is_logged(opened, report):
    _, requests, console = opened
    assert requests == [report.as_uri()]
    assert console == []


@NEEDS_BROWSER
def test_hostile_text_is_text(opened):
    browser, _, _ = opened
    assert browser.run("return document.title").startswith(f"quickstart {HOSTILE}")
    assert browser.run("return document.querySelectorAll('img').length") == 0
    assert browser.run("return document.scripts.length") == 2  # the data and our own
    search(browser, "needle")
    assert texts(browser, ".sample h3") == [f"needle {HOSTILE}"]
    assert texts(browser, ".answer pre") == [HOSTILE] * 5 + ["(no answer)"]
    search(browser, "")


@NEEDS_BROWSER
def test_even_injected_script_would_not_run(opened):
    browser, _, _ = opened
    browser.run(
        "const s = document.createElement('script'); s.textContent = 'window.owned = 1'; document.body.append(s)"
    )
    assert browser.run("return window.owned === undefined")
    browser.run("document.body.lastChild.remove()")
    assert any("Content Security Policy" in message for message in browser.console())


@NEEDS_BROWSER
def test_filters_count_and_show(opened, data):
    browser, _, _ = opened

    def both(sample):
        value = {answer.arm: answer.value for answer in sample.answers}
        return value["before"], value["dpo"]

    expected = {
        "fixed": sum(both(s) == (0.0, 1.0) for s in data.samples),
        "broken": sum(both(s) == (1.0, 0.0) for s in data.samples),
        "both wrong": sum(both(s) == (0.0, 0.0) for s in data.samples),
        "both right": sum(both(s) == (1.0, 1.0) for s in data.samples),
    }
    assert expected["fixed"] > 200
    for outcome, count in expected.items():
        choose(browser, outcome)
        chip = f"[data-outcome='{outcome}']"
        assert texts(browser, f"{chip} span") == [str(count)]
        assert browser.run("return document.querySelector(arguments[0]).getAttribute('aria-pressed')", chip) == "true"
        shown = texts(browser, ".sample .meta")
        assert len(shown) == min(10, count)
        assert all(meta.startswith(outcome) for meta in shown)
    choose(browser, "all")
    assert texts(browser, "#samples-found") == ["10 of 301 problems"]


@NEEDS_BROWSER
def test_search_finds_and_says_when_nothing_matches(opened, data):
    browser, _, _ = opened
    wanted = data.samples[17]
    search(browser, wanted.prompt.upper())
    assert texts(browser, ".sample h3") == [wanted.prompt]
    search(browser, "no such text")
    assert texts(browser, "#samples-found") == ["No problem matches."]
    search(browser, "")
    browser.run("document.getElementById('more').click()")
    assert len(texts(browser, ".sample")) == 20


@NEEDS_BROWSER
def test_keyboard_reaches_search_and_filters(opened):
    browser, _, _ = opened
    browser.run("document.activeElement.blur()")
    browser.press("/")
    assert browser.run("return document.activeElement.id") == "samples-search"
    browser.run("document.querySelector(\"[data-outcome='fixed']\").focus()")
    browser.press("\ue007")  # Enter
    assert texts(browser, "[aria-pressed='true']")[0].startswith("Fixed")
    choose(browser, "all")


@NEEDS_BROWSER
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_color_of_the_text_has_contrast(opened, scheme):
    browser, _, _ = opened
    browser.look(1280, 900, scheme)
    script = """
        const style = getComputedStyle(document.documentElement);
        return Object.fromEntries(['ground', 'ink', 'soft', 'accent', 'warn'].map(
            name => [name, style.getPropertyValue('--' + name).trim()]));
    """
    colors = browser.run(script)

    def light(color):
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for name in ("ink", "soft", "accent", "warn"):
        high, low = sorted((light(colors[name]), light(colors["ground"])), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, (name, colors)


@NEEDS_BROWSER
def test_phone_width_does_not_scroll_sideways(opened):
    browser, _, _ = opened
    browser.look(360, 740)
    assert browser.run("return document.documentElement.scrollWidth") == 360
    shown = "return [...document.querySelectorAll(arguments[0])].filter(e => e.getClientRects().length).length"
    assert browser.run(shown, "figure .wide svg") == 0
    assert browser.run(shown, "figure .narrow svg") > 4
    browser.look(1280, 900)


@NEEDS_BROWSER
@pytest.mark.slow
def test_ten_thousand_problems_stay_small(tmp_path):
    made = report_data(problems=10_000, samples=1, limit=10_000)
    write_report(made, tmp_path)
    page = tmp_path / "report.html"
    assert page.stat().st_size < 3_000_000
    with Browser() as browser:
        browser.open(page)
        (found,) = texts(browser, "#samples-found")
        (note,) = texts(browser, "#samples .note")[:1]
        shown, left = int(found.split()[2]), int(re.search(r"([\d,]+) of 10,000 problems", note)[1].replace(",", ""))
        assert shown + left == 10_000


def test_the_page_names_no_address(report):
    text = report.read_text()
    addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"'<>]*", text))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_ids_are_unique(report):
    ids = re.findall(r'\sid="([^"]+)"', report.read_text())
    assert len(ids) == len(set(ids))
