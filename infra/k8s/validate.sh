#!/usr/bin/env bash
# Render base and overlays, and hold them against the schemas of Kubernetes; where KUBECONFIG names a cluster, against the
# cluster itself too (a dry run on the server's side: nothing is made).
# usage: TOOLS=.venv-infra/bin [OUT=dist/manifests] infra/k8s/validate.sh
set -euo pipefail
tools=$(cd "${TOOLS:-.venv-infra/bin}" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")"
OUT=${OUT:-$(cd ../.. && pwd)/dist/manifests}
mkdir -p "$OUT"
if command -v kustomize >/dev/null; then build=(kustomize build); else build=(kubectl kustomize); fi
for place in base overlays/dev overlays/prod; do
    file=$OUT/$(basename "$place").yaml
    "${build[@]}" "$place" >"$file"
    # what Kubernetes itself knows; the Prometheus operator's kinds have no schema here
    "$tools/kubernetes-validate" --strict --quiet --no-warn --kubernetes-version "${K8S:-1.33.0}" "$file"
    echo "manifests: $file"
    if [[ -n ${KUBECONFIG:-} ]]; then
        namespace=$(sed -n '/^kind: Namespace/,/^---/s/^  name: //p' "$file")
        kubectl create namespace "$namespace" --dry-run=server -o name >/dev/null 2>&1 || true
        kubectl apply --dry-run=server --validate=false -f "$file"
    fi
done
