"""`tasteloop cluster`: the serving image as a KServe InferenceService."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pipelines.cli.console import print_json
from pipelines.cli.options import MOST, AsJson

commands = typer.Typer(
    no_args_is_help=True,
    help="The serving image as a KServe InferenceService: deploy a version, try another on a share of the requests, "
    "promote it or take it back (docs/cluster.md).",
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
        "--wait", min=0, max=MOST, metavar="SECONDS", help="For KServe to have done it; 0: don't."
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
    _print_releases(service, service.deploy(release), wait, as_json)


@commands.command("canary")
def cluster_canary(
    version: Version,
    image: Image,
    percent: Annotated[int, typer.Option(min=0, max=100, help="Of the requests.")] = 10,
    uri: BundleUri = None,
    digest: Digest = None,
    store: Store = None,
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

    service = Service(connect(context), name, namespace)
    _print_releases(
        service,
        service.canary(manifest.resolve_release(version, image, uri, digest, store), percent),
        wait,
        as_json,
    )


@commands.command("promote")
def cluster_promote(
    version: Version,
    name: ServiceName = "tasteloop",
    namespace: Namespace = "tasteloop",
    context: Context = None,
    wait: Seconds = 300,
    as_json: AsJson = False,
) -> None:
    """Make the version that is tried the stable one; in Standard mode its pods go on."""
    from serving.cluster.api import connect
    from serving.cluster.inference_service import Service

    service = Service(connect(context), name, namespace)
    _print_releases(service, service.promote(version), wait, as_json)


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
    _print_releases(service, service.rollback(), wait, as_json)


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
    _print_releases(service, service.releases(), 0, as_json)


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
    service = manifest.build_inference_service(
        settings,
        manifest.Releases(manifest.resolve_release(version, image, uri, digest, store)),
    )
    typer.echo(yaml.safe_dump(service, sort_keys=False), nl=False)


def _print_releases(service: Any, releases: Any, wait: int, as_json: bool) -> None:
    from dataclasses import asdict

    if wait:
        service.wait(wait, lambda line: typer.echo(line, err=True))
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
