#!/usr/bin/env bash
# Installs what is needed and runs recipes/quickstart.yaml to its report. Run it again: what is done is not done again.
#   bash scripts/quickstart.sh [step.field=value ...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/env.sh
. scripts/env.sh
setup_env
exec w2s run recipes/quickstart.yaml "$@"
