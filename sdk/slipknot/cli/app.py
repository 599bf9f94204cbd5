"""All commands and their help. What each does stands in the module it calls.

Exit status: 0 it worked; 1 it failed, and standard error says why; 2 the command line is wrong.
"""

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

Command = Callable[[], int | None]
"""Does the work; returns the exit status, None for 0."""

app = typer.Typer(
    name="slipknot",
    help="Serve Python models and agents over HTTP. Begin with: slipknot run module:app",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        "-a",
        help="Controller of the cluster, host:port or unix:/path; of several, separated by commas. "
        "Default: SLIPKNOT_ADDRESS, else the cluster that runs here.",
    ),
]
AppDir = Annotated[
    Path, typer.Option("--app-dir", "-d", help="Directory that the application's modules are imported from.")
]
Name = Annotated[str, typer.Option("--name", help="Name of the application.")]
RoutePrefix = Annotated[
    str, typer.Option("--route-prefix", help="Path below which the application is reached.")
]
ROLE: dict[str, Any] = {
    "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    "add_help_option": False,
}
"""Roles read their command lines themselves, off their configs."""
OneName = Annotated[str | None, typer.Option("--name", "-n", help="Only this application.")]


@app.command()
def run(
    target: Annotated[
        str,
        typer.Argument(
            help="Import path of an application (module:app) or of its builder, or a config file (.yaml)."
        ),
    ],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Arguments of the builder function.")
    ] = None,
    app_dir: AppDir = Path("."),
    working_dir: Annotated[Path | None, typer.Option(help="Same as --app-dir.")] = None,
    name: Name = "default",
    route_prefix: RoutePrefix = "/",
    blocking: Annotated[
        bool,
        typer.Option(
            "--blocking/--non-blocking",
            " /--no-blocking",
            help="Stay, show the logs, and shut down on Ctrl-C or SIGTERM.",
        ),
    ] = True,
    reload: Annotated[
        bool, typer.Option("--reload", "-r", help="Deploy again whenever a file in --app-dir changes.")
    ] = False,
    host: Annotated[
        str | None, typer.Option("--host", help="HTTP host of a cluster that this command starts.")
    ] = None,
    port: Annotated[int | None, typer.Option("--port", help="Its HTTP port.")] = None,
    address: Address = None,
) -> None:
    """Run an application on this machine (or with --address on a cluster), until Ctrl-C."""
    from .run import RunOptions, run_target

    options = RunOptions(
        target=target,
        arguments=tuple(arguments or ()),
        app_dir=(working_dir or app_dir).resolve(),
        name=name,
        route_prefix=route_prefix,
        blocking=blocking,
        reload=reload,
        host=host,
        port=port,
        address=address,
    )
    _checked(lambda: run_target(options))


@app.command()
def start(
    http_host: Annotated[
        str, typer.Option(help="HTTP host; anything but loopback opens it to the network.")
    ] = "127.0.0.1",
    http_port: Annotated[int, typer.Option(help="HTTP port.")] = 8000,
    grpc_port: Annotated[
        int | None, typer.Option(help="Port of the gRPC gateway on loopback; default 9000.")
    ] = None,
    proxy_location: Annotated[
        str, typer.Option(help="EveryNode, HeadOnly, or Disabled for no HTTP.")
    ] = "EveryNode",
    metrics_port: Annotated[
        int | None,
        typer.Option(
            help="Show the proxy's metrics at this port of loopback, the controller's at the next one, the "
            "node's and its replicas' at the one after. Without: see `slipknot metrics`."
        ),
    ] = None,
) -> None:
    """Start a cluster on this machine in the background. End it with: slipknot shutdown"""
    from .cluster import start_cluster

    _checked(lambda: start_cluster(http_host, http_port, grpc_port, proxy_location, metrics_port))


@app.command()
def deploy(
    target: Annotated[str, typer.Argument(help="A config file (.yaml), or an import path.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Arguments of the builder function.")
    ] = None,
    app_dir: AppDir = Path("."),
    name: Name = "default",
    route_prefix: RoutePrefix = "/",
    wait: Annotated[bool, typer.Option(help="Wait until it serves.")] = True,
    address: Address = None,
    working_dir: Annotated[
        Path | None,
        typer.Option(
            help="Directory of the application's code. A cluster on other machines gets a copy of it; "
            "without this option the code must be on every node."
        ),
    ] = None,
) -> None:
    """Deploy to a running cluster. With a config file, what runs becomes exactly what the file says."""
    from .cluster import deploy_target

    _checked(
        lambda: deploy_target(
            target,
            tuple(arguments or ()),
            (working_dir or app_dir).resolve(),
            name,
            route_prefix,
            wait,
            address,
            has_code=working_dir is not None,
        )
    )


@app.command()
def status(
    name: OneName = None,
    as_yaml: Annotated[
        bool, typer.Option("--yaml", help="YAML on a terminal too; elsewhere it is always YAML.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show it again after each change, until Ctrl-C.")
    ] = False,
    address: Address = None,
) -> None:
    """Show what runs: applications, deployments, replicas by node, proxies, nodes."""
    from .status import show_status

    _checked(lambda: show_status(name, address, as_yaml=as_yaml, watch=watch))


@app.command()
def metrics(
    match: Annotated[
        str, typer.Argument(help="Only metrics whose names have this in them.", metavar="[PART]")
    ] = "",
    address: Address = None,
) -> None:
    """Show the metrics of all members, as Prometheus's text."""
    from .metrics import show_metrics

    _checked(lambda: show_metrics(match, address))


@app.command()
def config(name: OneName = None, address: Address = None) -> None:
    """Show the config that was last deployed, as YAML."""
    from .cluster import show_config

    _checked(lambda: show_config(name, address))


@app.command("controller-health")
def controller_health(address: Address = None) -> None:
    """Tell whether a controller serves, and whether it leads; exit status 1 if not, or if nobody leads."""
    from .health import show_controller_health

    _checked(lambda: show_controller_health(address))


@app.command()
def build(
    import_paths: Annotated[
        list[str], typer.Argument(help="Import paths of applications, for example module:app.")
    ],
    app_dir: AppDir = Path("."),
    output: Annotated[
        Path | None, typer.Option("--output-path", "-o", help="Write here instead of printing.")
    ] = None,
) -> None:
    """Write a config file for applications: with all their deployments and options, to edit and deploy."""
    from .build import build_config

    _checked(lambda: build_config(import_paths, app_dir.resolve(), output))


@app.command()
def shutdown(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False, address: Address = None
) -> None:
    """Delete all applications and end the cluster; one that was put together by hand stays, empty."""
    from .cluster import shut_down

    _checked(lambda: shut_down(yes, address))


@app.command(**ROLE)
def controller(context: typer.Context) -> None:
    """Run a controller in the foreground. For clusters that you put together yourself."""
    from .roles import run_controller

    _checked(lambda: run_controller(context.args))


@app.command(**ROLE)
def proxy(context: typer.Context) -> None:
    """Run an HTTP proxy in the foreground. For clusters that you put together yourself."""
    from .roles import run_proxy

    _checked(lambda: run_proxy(context.args))


@app.command(**ROLE)
def node(context: typer.Context) -> None:
    """Run a node agent in the foreground: it starts replicas on this machine."""
    from .roles import run_node

    _checked(lambda: run_node(context.args))


@app.command()
def token(
    role: Annotated[
        str,
        typer.Option(
            help="member: a new secret for a new cluster. deployer, client: made from the cluster's, which "
            "must be in the environment."
        ),
    ] = "member",
    output: Annotated[
        Path | None, typer.Option("--output-path", "-o", help="Write to this new file, of mode 0600.")
    ] = None,
) -> None:
    """Make a token that processes prove themselves with."""
    from .secrets import make_token

    _checked(lambda: make_token(role, output))


@app.command()
def certs(
    directory: Annotated[
        Path, typer.Option("--dir", help="Where the files go; an authority that is there is used again.")
    ] = Path("certs"),
    role: Annotated[
        list[str] | None, typer.Option(help="member, deployer or client; several times. Default: all.")
    ] = None,
    name: Annotated[str, typer.Option(help="Beginning of the files' names; default: the role.")] = "",
    days: Annotated[float, typer.Option(help="How long the certificates are valid.")] = 365,
    host: Annotated[
        list[str] | None,
        typer.Option(help="Host name or IP address for clients that check those; several times."),
    ] = None,
) -> None:
    """Make certificates for mutual TLS, and a small authority that signs them."""
    from .secrets import make_certificates

    _checked(lambda: make_certificates(directory, role or [], name, days, host or []))


@app.command()
def health(
    address: Annotated[
        str, typer.Argument(help="Of a controller, a gateway, a replica or a node: host:port or unix:/path.")
    ],
    timeout_s: Annotated[float, typer.Option(help="Wait so long for the answer, in seconds.")] = 3.0,
) -> None:
    """Ask one process of a cluster whether it serves; exit status 0 if it does. For health checks."""
    from .health_check import check_health

    _checked(lambda: check_health(address, timeout_s))


def main() -> None:
    """Entry point of the `slipknot` command."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    app()


def _checked(command: Command) -> None:
    """Run a command; errors that a user can do something about become one message and exit status 1. What the
    user's own code raised comes with its traceback.
    """
    from slipknot_core.errors import SlipknotServeException

    from .._user_code import user_traceback

    expected = (
        *(SlipknotServeException, RuntimeError, ValueError, TypeError),
        *(ImportError, AttributeError, OSError),
    )
    try:
        status_code = command()
    except Exception as error:  # the user's module may raise anything
        shown = user_traceback(error)
        if shown is None and not isinstance(error, expected):
            raise
        typer.echo(shown or f"Error: {error}", err=True)
        raise typer.Exit(1) from None
    raise typer.Exit(status_code or 0)
