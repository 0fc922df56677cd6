"""On a real node: the training steps as Jobs, then the server behind a Service, killed under load,
rolled both ways.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from datetime import datetime

import httpx
import pytest

from serving.client import Client
from serving.cluster.state import Release
from tests.support.cluster import launcher, node
from tests.support.cluster.graph import (
    STEPS,
    check_stores,
    compile_for_cluster,
    fetch_sources,
    list_keys,
    local_runner,
    run_graph,
)
from tests.support.cluster.node import (
    Load,
    apply,
    deployment,
    get,
    is_ready,
    kubectl,
    pods,
    wait_until_rolled_out,
)
from tests.support.cluster.paths import BIN, ROOT, TOOLS
from tests.support.cluster.stores import BUCKET, run_stores

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def cluster(request, tmp_path_factory):
    """The node with both images in it; this process in its network."""
    if not (TOOLS / "k8s-node.sh").is_file():
        pytest.skip(
            f"no {TOOLS / 'k8s-node.sh'}: TASTELOOP_CLUSTER_TOOLS names the directory that starts a node"
        )
    if os.geteuid() != 0:
        pytest.skip("the node of k8s-node.sh is started as root")
    needed = [BIN / "kubelet", BIN / "kube-proxy", BIN / "kube-scheduler"]
    if missing := [str(path) for path in needed if not path.is_file()]:
        pytest.skip(
            f"no {missing[0]}: {TOOLS / 'build-k8s.sh'} makes it, or TASTELOOP_K8S_BIN names another place"
        )
    if missing := [
        name for name in ("containerd", "ctr", "etcd", "iptables", "gcc") if not shutil.which(name)
    ]:
        pytest.skip(f"the node of k8s-node.sh needs {missing[0]}")
    images = request.getfixturevalue("images")
    folder = tmp_path_factory.mktemp("node")
    tar = folder / "images.tar"
    subprocess.run(["docker", "save", "--output", tar, *images.values()], check=True, timeout=600)
    script = [TOOLS / "k8s-node.sh"]
    env = {**os.environ, "BINDIR": str(BIN)}
    try:
        up = subprocess.run(
            [*script, "up", folder, tar], capture_output=True, text=True, timeout=900, env=env
        )
        assert " Ready" in up.stdout, up.stdout + up.stderr
        tar.unlink()
        with pytest.MonkeyPatch.context() as patch, node.inside():
            patch.setenv("KUBECONFIG", str(folder / "kubeconfig"))
            node.prepare(ROOT)
            yield images
    finally:
        subprocess.run(
            [*script, "down", folder], check=False, capture_output=True, timeout=120, env=env
        )


@pytest.fixture(scope="module")
def stores(cluster, tmp_path_factory):
    with run_stores(tmp_path_factory.mktemp("stores"), node.HOST, (5000, 5001)) as running:
        yield running


@pytest.fixture(scope="module")
def trained(cluster, stores, tmp_path_factory):
    """The champion that the Jobs made, and how many seconds each took."""
    from kfp.local import DockerRunner, docker_task_handler

    folder = tmp_path_factory.mktemp("jobs")
    package = compile_for_cluster(folder / "training.yaml", cluster["steps"], stores.tracking)
    jobs = node.Jobs(package, stores, fetch_sources())
    with pytest.MonkeyPatch.context() as patch, local_runner(DockerRunner(), folder / "root"):
        patch.setattr(docker_task_handler, "DockerTaskHandler", jobs.handler)
        # the map of runners is looked up by this name when a task starts
        run_graph(package)
    with pytest.MonkeyPatch.context() as patch:
        yield check_stores(stores, folder / "root", folder / "home", patch), jobs.seconds


@pytest.fixture(scope="module")
def releases(cluster, stores, trained, tiny_bundle):
    """Version 1 is what the Jobs promoted, where MLflow keeps it; version 2 another bundle beside
    it.
    """
    from tasteloop.bundle.manifest import verify

    end = "/manifest.json"
    manifests = [key for key in list_keys(stores, "mlflow/") if key.endswith(f"bundle{end}")]
    (directory,) = {key.removesuffix(end) for key in manifests}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORE", stores.s3)
        launcher.send(tiny_bundle, f"s3://{BUCKET}/other")
    image = cluster["serving"]
    return (
        Release("1", f"s3://{BUCKET}/{directory}", trained[0].digest, image),
        Release("2", f"s3://{BUCKET}/other", verify(tiny_bundle), image),
    )


@pytest.fixture(scope="module")
def url(releases, stores):
    """The Service's address by its ClusterIP, version 1 behind it."""
    apply(deployment(releases[0], stores), node.service())
    wait_until_rolled_out()
    return f"http://{get('service', node.DEPLOYMENT)['spec']['clusterIP']}"


def test_the_steps_run_as_jobs_in_production_s_security_contexts(trained, say):
    live, seconds = trained
    assert live.version == "1" and seconds.keys() == STEPS
    say(f"seconds of each Job: { {step: round(s, 1) for step, s in seconds.items()} }")
    for job in get("jobs")["items"]:
        (container,) = job["spec"]["template"]["spec"]["containers"]
        context = container["securityContext"]
        assert (
            context["runAsUser"] == 10001
            and context["readOnlyRootFilesystem"]
            and context["runAsNonRoot"]
        )
        assert (
            context["capabilities"] == {"drop": ["ALL"]} and not context["allowPrivilegeEscalation"]
        )


def test_a_serving_pod_is_ready_within_20_seconds(url, say):
    for pod in pods():
        at = {
            c["type"]: datetime.fromisoformat(c["lastTransitionTime"])
            for c in pod["status"]["conditions"]
        }
        (state,) = pod["status"]["containerStatuses"]
        began = datetime.fromisoformat(state["state"]["running"]["startedAt"])
        after_start = (at["Ready"] - began).total_seconds()
        after_scheduling = (at["Ready"] - at["PodScheduled"]).total_seconds()
        say(f"ready after {after_start:.0f} s, {after_scheduling:.0f} s since it was scheduled")
        assert after_start <= 20


def test_v1_and_v2_answer_through_the_cluster_ip(url, releases):
    assert httpx.get(f"{url}/v1/models", trust_env=False).status_code == 401
    with Client(url, token=node.TOKEN) as client:
        assert client.ready()
        (answer,) = client.predict("sentiment", [{"text": "A delight."}])
        assert answer["sentiment"] in ("positive", "negative") and 0 <= answer["probability"] <= 1
        (shown,) = client.predict(
            "recommend", [{"k": 3, "events": [{"kind": "click", "item": "50"}]}]
        )
        assert len(shown["recommendations"]) == 3
        response = client.infer(
            "sentiment",
            [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["A delight."]}],
        )
        assert response["model_version"] == releases[0].version and response["outputs"]


def test_a_pod_killed_under_load_loses_no_more_than_was_under_way(url, say):
    victim = pods()[0]["metadata"]["name"]
    with Load(url) as load:
        time.sleep(5)
        assert load.answers and not load.lost
        killed = time.monotonic()
        crash(victim)
        while not restarted(victim):
            assert time.monotonic() - killed < 120, "the pod does not come back"
            time.sleep(0.2)
        recovered = time.monotonic() - killed
        time.sleep(5)
    after = [began for began, *_ in load.answers if began > killed + recovered]
    last = max([began for began, _ in load.lost] + load.refused, default=killed) - killed
    say(
        f"{len(load.answers)} answers, {len(load.lost)} lost, {len(load.refused)} connections refused, "
        f"the last {last:.1f} s after the kill; the pod was ready again after {recovered:.1f} s"
    )
    assert len(load.lost) <= load.callers and all(
        began <= killed + 0.5 for began, _ in load.lost
    ), load.lost
    assert after


def crash(name):
    """End the server's process as the kernel would for want of memory."""
    (state,) = get("pod", name)["status"]["containerStatuses"]
    container = state["containerID"].removeprefix("containerd://")
    socket = os.path.join(os.path.dirname(os.environ["KUBECONFIG"]), "containerd.sock")
    subprocess.run(
        ["ctr", "-a", socket, "-n", "k8s.io", "task", "kill", "-s", "SIGKILL", container],
        check=True,
    )


def restarted(name):
    pod = get("pod", name)
    return is_ready(pod) and pod["status"]["containerStatuses"][0]["restartCount"] == 1


def test_rolling_to_a_second_version_and_back_fails_no_request(url, releases, stores, say):
    one, two = releases
    with Load(url) as load:
        time.sleep(3)
        for release in (two, one):
            began = time.monotonic()
            apply(deployment(release, stores))
            wait_until_rolled_out()
            say(f"rolled to version {release.version} in {time.monotonic() - began:.0f} s")
            time.sleep(3)
            assert {version for at, _, version in load.answers if at > time.monotonic() - 2} == {
                release.version
            }
    slowest = max(seconds for _, seconds, _ in load.answers)
    say(
        f"{len(load.answers)} answers, {len(load.lost)} lost, {len(load.refused)} refused, slowest {slowest:.2f} s"
    )
    assert not load.lost and not load.refused
    assert {version for *_, version in load.answers} == {"1", "2"}
    kubectl("delete", "-n", node.SPACE, "deployment", node.DEPLOYMENT, "--wait=true")
