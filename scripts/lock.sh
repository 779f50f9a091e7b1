#!/usr/bin/env bash
# Writes requirements/cpu.txt and requirements/cuda.txt anew from pyproject.toml, for Python 3.11 to 3.14 on any machine.
#   bash scripts/lock.sh [options of uv pip compile]    e.g. --upgrade-package trl; without any, what is locked stays
# Needs uv (pip install uv). Where PyTorch's index cannot be reached: UV_NO_SOURCES=1 UV_FIND_LINKS=FOLDER, where FOLDER
# has a wheel of the CPU build. Hashes are left out: they would tie the files to the wheels of one Python.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
options=(--extra server --extra ray --extra deepspeed --extra qlora --extra lm_eval --extra track)
for build in cpu cuda; do
    # The CPU build of vLLM works without it, and the build that the public registry has does not fit it.
    left_out=()
    [ "$build" = cuda ] || left_out=(--no-emit-package torchvision)
    uv pip compile pyproject.toml --universal --python-version 3.11 --extra "$build" "${options[@]}" \
        ${left_out[@]+"${left_out[@]}"} --quiet --no-annotate --no-emit-index-url --no-emit-find-links \
        --custom-compile-command "bash scripts/lock.sh" --output-file "requirements/$build.txt" "$@" >/dev/null
done
