#!/usr/bin/env bash
# Build the images, say how large they are, write an SBOM of each beside them and look for known vulnerabilities.
# usage: BASE=python:3.11-slim-bookworm@sha256:… [REGISTRY=registry.example/me] infra/docker/build.sh [steps] [serving]
#   BASE            the base image by digest (or an image's id, sha256:…): a tag would be another one tomorrow
#   REGISTRY        before the names; nothing is pushed
#   BUILD_ARGS      more for `docker build`, such as --build-arg PIP_INDEX_URL=… --build-arg HTTPS_PROXY=… --network host
#   TOOLS           a directory with cyclonedx-py and pip-audit (make images gives its own)
#   AUDIT           off: no audit, where no vulnerability data can be reached
#   OUT             where the SBOMs go (dist/images)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[[ ${BASE:-} == *sha256:* ]] || { echo "images: name the base by digest: make images BASE=python:3.11-slim-bookworm@sha256:…" >&2; exit 2; }
command -v docker >/dev/null || { echo "images: there is no docker here; install one, or set DOCKER_HOST" >&2; exit 2; }
OUT=${OUT:-dist/images} revision=$(git rev-parse HEAD) tag=$(git rev-parse --short=12 HEAD)
[[ -z $(git status --porcelain -- tasteloop validation serving components pipelines infra/docker torch.lock) ]] || tag+=-dirty
source=$(git config --get remote.origin.url || true)
[[ $source =~ ^https:// ]] || source=
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
mkdir -p "$OUT"
for kind in "${@:-steps serving}"; do for kind in $kind; do
    name=${REGISTRY:+$REGISTRY/}tasteloop-$([[ $kind == steps ]] && echo python || echo "$kind-python"):$tag
    echo "images: $name"
    # shellcheck disable=SC2086
    docker build --quiet ${BUILD_ARGS:-} --build-arg "BASE=$BASE" --build-arg "REVISION=$revision" \
        --build-arg "SOURCE=$source" --build-arg "VERSION=$version" --file "infra/docker/$kind.Dockerfile" --tag "$name" .
    docker image inspect --format "images: {{.Size}} bytes, user {{.Config.User}}" "$name"
    if [[ -n ${TOOLS:-} ]]; then
        locks=("infra/docker/$kind.lock")
        [[ $kind != steps ]] || locks+=(torch.lock)
        "$TOOLS/cyclonedx-py" requirements <(cat "${locks[@]}") --output-reproducible --of JSON -o "$OUT/$kind.cdx.json"
        echo "images: SBOM $OUT/$kind.cdx.json"
        for lock in "${locks[@]}"; do  # one by one: torch.lock has no hashes, and where one file has them all must
            [[ ${AUDIT:-on} == off ]] || "$TOOLS/pip-audit" --strict --requirement "$lock" --no-deps --disable-pip --progress-spinner off
        done
    fi
done; done
