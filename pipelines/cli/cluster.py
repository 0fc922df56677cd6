"""`tasteloop cluster`: the serving image as a KServe InferenceService."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli.console import print_json
from pipelines.cli.options import MOST, AsJson, Profile, Set

if TYPE_CHECKING:
    from pipelines.settings import ClusterSettings
    from serving.cluster.check import Finding, Needs

commands = typer.Typer(
    no_args_is_help=True,
    help="The serving image as a KServe InferenceService: deploy a version, try another on a share of the requests, "
    "promote it or take it back; check a cluster before that (docs/cluster.md).",
    epilog="example: tasteloop cluster deploy --version 3 --image REGISTRY/tasteloop-serving-python@sha256:…",
)

Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Of the InferenceService.")]
ServiceName = Annotated[str, typer.Option("--name", help="Of the InferenceService.")]
Context = Annotated[
    str | None,
    typer.Option(help="Of kubectl's configuration; else its current one, or the pod's account."),
]
Version = Annotated[str, typer.Option("--version", metavar="N", help="The registered version.")]
Image = Annotated[
    str, typer.Option("--image", metavar="REF", help="The serving image, best by digest.")
]
BundleUri = Annotated[
    str | None,
    typer.Option(
        "--uri",
        help="Where KServe finds the bundle (s3://…, with --digest); else the registry says.",
    ),
]
Digest = Annotated[str | None, typer.Option("--digest", help="The bundle's digest, with --uri.")]
Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="s3://…",
        help="MLflow's --artifacts-destination, where its server proxies artifacts.",
    ),
]
ServiceSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        help="A setting of the service, such as replicas=3; repeatable.",
    ),
]
Seconds = Annotated[
    int,
    typer.Option(
        "--wait",
        min=0,
        max=MOST,
        metavar="SECONDS",
        help="In which it is done and seen to be done; 0: take the first step, and don't look.",
    ),
]


@commands.command("deploy")
def cluster_deploy(
    version: Version,
    image: Image,
    uri: BundleUri = None,
    digest: Digest = None,
    store: Store = None,
    set: ServiceSettings = None,
    name: ServiceName = "tasteloop",
    namespace: Namespace = "tasteloop",
    context: Context = None,
    wait: Seconds = 300,
    as_json: AsJson = False,
) -> None:
    """Make a version the stable one at once: the first, or one that needs no trial."""
    from serving.cluster import manifest
    from serving.cluster.api import connect
    from serving.cluster.inference_service import Service

    options = manifest.parse_options(set or [])
    # a mistake is refused before the registry and the cluster are asked
    manifest.check_settings(name, namespace, **options)
    release = manifest.resolve_release(version, image, uri, digest, store)
    service = Service(connect(context), name, namespace, **options)
    _print_releases(service, service.deploy(release, wait, _say), as_json)


@commands.command("canary")
def cluster_canary(
    version: Version,
    image: Image,
    percent: Annotated[int, typer.Option(min=0, max=100, help="Of the requests.")] = 10,
    uri: BundleUri = None,
    digest: Digest = None,
    store: Store = None,
    set: ServiceSettings = None,
    name: ServiceName = "tasteloop",
    namespace: Namespace = "tasteloop",
    context: Context = None,
    wait: Seconds = 300,
    as_json: AsJson = False,
) -> None:
    """Send a share of the requests to a version; the same version again changes its share."""
    from serving.cluster import manifest
    from serving.cluster.api import connect
    from serving.cluster.inference_service import Service

    options = manifest.parse_options(set or [])
    # a mistake is refused before the registry and the cluster are asked
    manifest.check_settings(name, namespace, **options)
    release = manifest.resolve_release(version, image, uri, digest, store)
    service = Service(connect(context), name, namespace, **options)
    _print_releases(service, service.canary(release, percent, wait, _say), as_json)


@commands.command("promote")
def cluster_promote(
    version: Version,
    name: ServiceName = "tasteloop",
    namespace: Namespace = "tasteloop",
    context: Context = None,
    wait: Seconds = 300,
    as_json: AsJson = False,
) -> None:
    """Make the version that is tried the stable one.

    It gets as many pods as the stable one has, then all requests; then the others go.
    """
    from serving.cluster.api import connect
    from serving.cluster.inference_service import Service

    service = Service(connect(context), name, namespace)
    _print_releases(service, service.promote(version, wait, _say), as_json)


@commands.command("rollback")
def cluster_rollback(
    name: ServiceName = "tasteloop",
    namespace: Namespace = "tasteloop",
    context: Context = None,
    wait: Seconds = 300,
    as_json: AsJson = False,
) -> None:
    """End a canary; without one, make the version before the stable one again."""
    from serving.cluster.api import connect
    from serving.cluster.inference_service import Service

    service = Service(connect(context), name, namespace)
    _print_releases(service, service.rollback(wait, _say), as_json)


@commands.command("status")
def cluster_status(
    name: ServiceName = "tasteloop",
    namespace: Namespace = "tasteloop",
    context: Context = None,
    as_json: AsJson = False,
) -> None:
    """Which versions answer, with which share, and what KServe has still to do."""
    from serving.cluster.api import connect
    from serving.cluster.inference_service import Service

    service = Service(connect(context), name, namespace)
    _print_releases(service, service.releases(), as_json)


@commands.command("manifest")
def cluster_manifest(
    version: Version,
    image: Image,
    uri: BundleUri = None,
    digest: Digest = None,
    store: Store = None,
    set: ServiceSettings = None,
    name: ServiceName = "tasteloop",
    namespace: Namespace = "tasteloop",
) -> None:
    """Print the InferenceService that `deploy` would apply, as YAML; asks no cluster."""
    import yaml

    from serving.cluster import manifest

    settings = manifest.check_settings(name, namespace, **manifest.parse_options(set or []))
    release = manifest.resolve_release(version, image, uri, digest, store)
    service = manifest.build_inference_service(settings, manifest.build_state(settings, release))
    typer.echo(yaml.safe_dump(service, sort_keys=False), nl=False)


@commands.command(
    "check",
    epilog="example: tasteloop cluster check --image $TASTELOOP_IMAGE --store http://seaweedfs.kubeflow:9000. "
    "Exit codes: 0 nothing is bad, 1 something is, 2 no cluster answers.",
)
def cluster_check(
    profile: Profile = "cluster",
    set: Set = None,
    name: ServiceName = "tasteloop",
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="Of runs and service.")
    ] = "tasteloop",
    pipelines: Annotated[
        str, typer.Option("--pipelines", help="The namespace of Kubeflow Pipelines.")
    ] = "kubeflow",
    mode: Annotated[
        str, typer.Option("--mode", help="Of KServe: Standard or Knative.")
    ] = "Standard",
    image: Annotated[
        str | None,
        typer.Option(
            "--image",
            metavar="REF",
            help="Any image with Python: a pod of it asks MLflow and the store, and is removed.",
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option("--store", metavar="URL", help="The object store's HTTP address."),
    ] = None,
    context: Context = None,
    wait: Annotated[
        int, typer.Option("--wait", min=1, max=MOST, metavar="SECONDS", help="For that pod.")
    ] = 120,
    as_json: AsJson = False,
) -> None:
    """Ask a cluster for all that a profile and a service need, and say what to do about the rest.

    Each line is good, bad or unknown. Unknown is what you may not read, or what nothing in the
    cluster tells: a remedy says how to find out.

    Versions of Kubernetes, Pipelines, KServe, Gateway API, Trainer and JobSet; volumes, GPU nodes,
    metrics-server, Secrets, accounts, network policies, rights. With --image also whether MLflow
    and the object store answer from a pod. Nothing is changed but for that pod.
    """
    from dataclasses import asdict

    from pipelines.settings import load_settings
    from serving.cluster.api import connect
    from serving.cluster.check import check_cluster
    from serving.cluster.reach import check_reach
    from tasteloop.errors import TasteloopError

    settings = load_settings(profile, set or []).cluster
    if settings is None:
        raise TasteloopError(
            f"the profile {profile} has no section `cluster`; check one that runs on a cluster, such as cluster"
        )
    if mode not in ("Standard", "Knative"):
        raise TasteloopError(f"--mode {mode!r}; allowed: Standard, Knative")
    needs = _needs(settings, namespace, name, pipelines, mode)
    client = connect(context)
    show = None if as_json else _print_finding
    findings = check_cluster(client, needs, show)
    for finding in check_reach(client, needs, image, store, wait):
        findings.append(finding)
        if show:
            show(finding)
    count = {
        state: sum(finding.state == state for finding in findings)
        for state in ("good", "bad", "unknown")
    }
    if as_json:
        print_json({**count, "findings": [asdict(finding) for finding in findings]})
    else:
        typer.echo(", ".join(f"{number} {state}" for state, number in count.items()))
    raise typer.Exit(1 if count["bad"] else 0)


def _needs(
    cluster: ClusterSettings, namespace: str, service: str, pipelines: str, mode: str
) -> Needs:
    """What a profile's settings ask of the cluster, and the service's defaults."""
    from pipelines.settings import secret
    from serving.cluster.check import Needs
    from serving.cluster.manifest import ServiceSettings

    defaults = ServiceSettings()
    keys: dict[str, tuple[str, ...]] = {}
    references = [secret(reference) for reference in cluster.secrets.values()]
    for name, key in [*references, (defaults.token or "", "api-token")]:
        keys[name] = (*keys.get(name, ()), key)
    return Needs(
        namespace=namespace,
        service=service,
        pipelines=pipelines,
        mode=mode,
        secrets=keys,
        claims=tuple(filter(None, (cluster.volume, cluster.journal))),
        accelerator=cluster.finetune.accelerator,
        gpus=max(cluster.finetune.gpu, cluster.monitor.gpu),
        is_together=cluster.finetune.together,
        tracking=cluster.tracking,
        steps=cluster.service_account,
        serving=defaults.account or "default",
        pull_secrets=cluster.pull_secrets,
    )


def _print_finding(finding: Finding) -> None:
    typer.echo(f"{finding.state:<8} {finding.name}: {finding.message}")
    if finding.remedy:
        typer.echo(f"{'':<8} -> {finding.remedy}")


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _print_releases(service: Any, releases: Any, as_json: bool) -> None:
    from dataclasses import asdict

    pending = service.pending()
    if as_json:
        print_json({**asdict(releases), "pending": pending})
        return
    typer.echo(f"stable     version {releases.stable.version} ({releases.stable.digest[:12]})")
    if releases.tried:
        typer.echo(
            f"tried      version {releases.tried.version}, {releases.percent} percent of the requests"
        )
    if releases.before:
        typer.echo(f"before     version {releases.before.version}")
    typer.echo(f"KServe     {pending or 'has done it'}")
