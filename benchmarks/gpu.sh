#!/usr/bin/env bash
# Fine-tuning, encoding and serving on a GPU, within eight minutes: a table, and the same as JSON.
# usage: benchmarks/gpu.sh [--tiny] [--out FILE]
#   --tiny   sizes at which all of it runs on a processor in a minute or two: whether it works, not how fast it is
#   --out    where the JSON goes (dist/gpu.json)
#   PYTHON   an environment with the locked packages (.venv/bin/python where that exists)
# It brings what it needs: texts are made at random, and so are the weights, since speed does not depend on them. In a fresh
# checkout it makes an environment in .venv-gpu from the lock files, which needs the package index and nothing else. The
# eight minutes begin after that.
#
# It has run on one H200; docs/results.md has the table. Each row is printed as soon as it is measured.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-.venv/bin/python}
if [[ ! -x $python ]]; then
    python=.venv-gpu/bin/python
    if [[ ! -e .venv-gpu/.complete ]]; then
        echo "gpu: installing the locked packages into .venv-gpu (about 7 GB with torch's CUDA build)" >&2
        python3 -m venv .venv-gpu
        "$python" -m pip install --quiet --no-deps --require-hashes --requirement requirements.lock
        "$python" -m pip install --quiet --requirement torch.lock
        touch .venv-gpu/.complete
    fi
fi
export HF_HUB_OFFLINE=1 PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
TASTELOOP_HOME=$(mktemp -d)
export TASTELOOP_HOME
trap 'rm -rf "$TASTELOOP_HOME"' EXIT
timeout --kill-after=10 480 "$python" -m benchmarks.gpu "$@"
