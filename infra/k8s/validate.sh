#!/usr/bin/env bash
# Render overlays, and the base with every component, and hold them against the schemas of Kubernetes and every pod against the
# level `restricted`; where KUBECONFIG names a cluster, against the cluster itself too (a dry run on the server's side: nothing
# is made).
# usage: TOOLS=.venv-infra/bin [OUT=dist/manifests] infra/k8s/validate.sh
set -euo pipefail
tools=$(cd "${TOOLS:-.venv-infra/bin}" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")"
OUT=${OUT:-$(cd ../.. && pwd)/dist/manifests}
mkdir -p "$OUT/everything"
if command -v kustomize >/dev/null; then build=(kustomize build); else build=(kubectl kustomize); fi
here=$(realpath --relative-to="$OUT/everything" .)
{
    echo "namespace: tasteloop"
    echo "resources: [$here/base]"
    echo "components: [$(printf "$here/%s," components/*/ | sed 's,/\,,\,,g; s/,$//')]"
} >"$OUT/everything/kustomization.yaml"
rendered=()
for place in overlays/*/ "$OUT/everything"; do
    file=$OUT/$(basename "$place").yaml
    "${build[@]}" "$place" >"$file"
    # what Kubernetes itself knows; kinds of the Prometheus and Spark operators have no schema here
    "$tools/kubernetes-validate" --strict --quiet --no-warn --kubernetes-version "${K8S:-1.33.0}" "$file"
    echo "manifests: $file"
    rendered+=("$file")
    if [[ -n ${KUBECONFIG:-} && $place == overlays/* ]]; then
        namespace=$(sed -n 's/^namespace: //p' "$place/kustomization.yaml")
        if kubectl get namespace "$namespace" >/dev/null 2>&1; then
            kubectl apply --dry-run=server --validate=false -f "$file"
        else # a dry run makes no namespace either, so the server would refuse all that lies in it
            echo "manifests: no namespace $namespace in that cluster, so $file was not held against it"
        fi
    fi
done
# the pods that commands make (tasteloop cluster deploy, a TrainJob's) beside those that are applied
"$tools/python" check_pods.py "${rendered[@]}" ../../tests/golden/inferenceservice.yaml ../../tests/golden/trainjob.yaml
