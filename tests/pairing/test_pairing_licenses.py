"""Licenses of generators: what is stated goes first, what is not known is not guessed, what binds is told."""

import pytest

from w2s_align.pairing import audit, model_order
from w2s_align.pairing.licenses import find_licenses, license_warnings


def test_what_is_stated_goes_first_and_nothing_is_guessed():
    models = ["Qwen/Qwen2.5-3B-Instruct", "Qwen/Qwen2.5-7B-Instruct", "org/never-heard-of", "weak"]
    assert find_licenses(models, {}) == {
        "Qwen/Qwen2.5-3B-Instruct": "qwen-research",
        "Qwen/Qwen2.5-7B-Instruct": "apache-2.0",
        "org/never-heard-of": "not stated",
        "weak": "not stated",
    }
    stated = find_licenses(models, {"org/never-heard-of": "mit", "Qwen/Qwen2.5-7B-Instruct": "mine"})
    assert (stated["org/never-heard-of"], stated["Qwen/Qwen2.5-7B-Instruct"]) == ("mit", "mine")


def test_a_card_in_the_local_cache_is_read(tmp_path, monkeypatch):
    card = tmp_path / "README.md"
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: str(card))
    card.write_text("---\nlicense: gemma\n---\n# A model\n")
    assert find_licenses(["org/model"], {}) == {"org/model": "gemma"}
    card.write_text("---\nlicense: other\nlicense_name: my-research\n---\n")
    assert find_licenses(["org/model"], {}) == {"org/model": "my-research"}
    card.write_text("---\nlicense: [\n---\n")
    assert find_licenses(["org/model"], {}) == {"org/model": "not stated"}


@pytest.mark.parametrize("license", ["qwen-research", "cc-by-nc-4.0", "CC-BY-NC-SA-4.0", "non-commercial", "nc"])
def test_licenses_that_forbid_commercial_use_are_told(license):
    (warning,) = license_warnings({"org/m": license})
    assert warning == f"Not for commercial use, by the license of a model that wrote responses: org/m ({license})."


def test_licenses_that_allow_it_and_models_of_ones_own_are_no_warning():
    assert license_warnings({"a/b": "apache-2.0", "c/d": "mit", "e/f": "llama3.1", "weak": "not stated"}) == []
    (silent,) = license_warnings({"a/b": "not stated"})
    assert silent == "The license of a/b is not stated: look it up before you publish these pairs."


def test_the_audit_carries_them(make):
    weak, weaker = make.responses([("a", "org/w", 0, "yes")]), make.responses([("a", "own", 0, "no")])
    pairs = model_order(weak, weaker, make.prompts("a"))
    found = pairs.audit(generator_licenses={"org/w": "cc-by-nc-4.0"})
    assert found.licenses == {"org/w": "cc-by-nc-4.0", "own": "not stated"}
    assert any("Not for commercial use" in warning for warning in found.warnings)
    assert audit(pairs.table).from_json(found.to_json()) == found
