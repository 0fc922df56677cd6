#!/usr/bin/env bash
# Write the lock files: requirements.lock, torch.lock, and the images' subsets in infra/docker.
# usage: infra/lock.sh [hashes]
#   without an argument   resolve pyproject.toml anew with the lowest Python that is supported, then add hashes
#   hashes                keep every pin, and write the hashes of all its files anew
#   PYTHON                the Python that resolves (python3.11)
# A pin carries the hashes of all files of its version, so that it installs on every platform and supported Python. torch
# has none: its file differs by index, CPU or CUDA. It is pinned in torch.lock and installed after the rest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=${PYTHON:-python3.11}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

heading() { sed '/^[^#]/,$d' "$1"; }
pins() { grep -oE '^[A-Za-z0-9._-]+==[^ ;\\]+( ;[^\\]*[^ \\])?' "$1"; }

# `pip freeze` without pip and this package, without CUDA (the index in use decides), and with setuptools marked: torch wants it
# from Python 3.12 on, when it no longer comes with the environment.
frozen() {
    "$1/bin/python" -m pip freeze --all | sed -E -e '/^(pip|tasteloop)[ =]|^(nvidia|cuda|triton)[-=_]/d' \
        -e 's/^(torch==[^+]*)\+.*/\1/' -e 's/^setuptools==.*/& ; python_version >= "3.12"/'
}

# Replace a lock file by the pins on standard input with their hashes; its heading stays.
write_lock() {
    cat > "$scratch/pins.txt"
    "$scratch/tools/bin/uv" pip compile --quiet --no-deps --universal --generate-hashes --no-header --no-annotate \
        --python-version 3.11 "$scratch/pins.txt" --output-file "$scratch/hashed.txt" > "$scratch/uv.log" \
        || { cat "$scratch/uv.log" >&2; exit 1; }
    { heading "$1"; cat "$scratch/hashed.txt"; } > "$1.new"
    mv "$1.new" "$1"
    rm "$scratch/hashed.txt"
    echo "lock: wrote $1, $(grep -c == "$1") packages"
}

"$PYTHON" -m venv "$scratch/tools"
"$scratch/tools/bin/python" -m pip install --quiet uv

if [[ ${1:-} == hashes ]]; then
    for lock in requirements.lock infra/docker/steps.lock infra/docker/serving.lock infra/requirements.lock; do
        pins "$lock" > "$scratch/present.txt"
        write_lock "$lock" < "$scratch/present.txt"
    done
    exit
fi

echo "lock: resolving in a scratch environment"
"$PYTHON" -m venv "$scratch/all"
"$scratch/all/bin/python" -m pip install --quiet --upgrade setuptools ".[dev]"
frozen "$scratch/all" > "$scratch/all.txt"
{ heading torch.lock; grep '^torch==' "$scratch/all.txt"; } > torch.lock.new
mv torch.lock.new torch.lock
grep -v '^torch==' "$scratch/all.txt" > "$scratch/others.txt"
write_lock requirements.lock < "$scratch/others.txt"

echo "lock: the images' subsets"
sed 's/ ;.*//' "$scratch/all.txt" > "$scratch/constraints.txt"
"$PYTHON" -m venv "$scratch/steps"
"$scratch/steps/bin/python" -m pip install --quiet --upgrade --constraint "$scratch/constraints.txt" setuptools .
frozen "$scratch/steps" | grep -v '^torch==' > "$scratch/steps.txt"
write_lock infra/docker/steps.lock < "$scratch/steps.txt"
"$PYTHON" -m venv "$scratch/serving"
"$scratch/serving/bin/python" -m pip install --quiet --upgrade --constraint "$scratch/constraints.txt" \
    setuptools --requirement infra/docker/serving.in
frozen "$scratch/serving" | grep -v '^setuptools==' > "$scratch/serving.txt"
write_lock infra/docker/serving.lock < "$scratch/serving.txt"
