#!/usr/bin/env bash
# Installs what is needed, checks style and types, runs the tests.
#   bash scripts/test.sh [--slow] [pytest arguments]     --slow adds the tests that take minutes
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/env.sh
. scripts/env.sh
setup_env dev reasoning_gym smollm2

# The pages are tested in a real browser: chromium (by any of its names) and its driver, which Debian packs apart.
browser_is_there() {
    command -v chromedriver >/dev/null 2>&1 &&
        { command -v chromium || command -v chromium-browser || command -v google-chrome; } >/dev/null 2>&1
}
as_root=
if [ "$(id -u)" != 0 ]; then # nobody's own machine is changed through sudo
    [ "${CI:-}" = true ] && as_root="sudo -n" || as_root=false
fi
if ! browser_is_there && command -v apt-get >/dev/null 2>&1 && $as_root true 2>/dev/null; then
    echo "Installing chromium and chromedriver for the tests of the pages"
    ($as_root apt-get update -qq && $as_root apt-get install -y -qq --no-install-recommends chromium chromium-driver) >/dev/null 2>&1 || true
fi
if ! browser_is_there; then
    if [ "${CI:-}" = true ]; then
        echo "No chromium with chromedriver: the tests of the pages fail, because CI is true."
    else
        echo "No chromium with chromedriver: the tests of the pages are skipped."
    fi
fi

# Two processes, each with whole files: engines, servers and models are shared within a file.
select=(-m "not slow" -n "${W2S_TEST_PROCESSES:-2}" --dist loadfile --no-loadscope-reorder)
if [ "${1:-}" = --slow ]; then
    select=()
    shift
fi
ruff check .
ruff format --check .
mypy
exec python -m pytest ${select[@]+"${select[@]}"} "$@"
