#!/usr/bin/env bash
# Installs what is needed and nothing else.
#   bash scripts/install.sh [--locked] [extra ...]    --locked: exactly the versions of requirements/cpu.txt or cuda.txt
set -euo pipefail
# shellcheck source=scripts/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
setup_env "$@"
