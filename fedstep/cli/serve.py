"""Commands that run an aggregator and show the versions in its store."""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps
from ipaddress import ip_network
from math import isnan
from typing import TYPE_CHECKING

import click

from fedstep.cli.options import STORE, FloatRange, combine, explicit_options, option
from fedstep.cli.output import echo_warnings
from fedstep.cli.server_admin import missing_extra
from fedstep.errors import UsageError
from fedstep.federation.messages import MOST_NOISE, NOISE

if TYPE_CHECKING:
    from fedstep.server.app import AppFactory
    from fedstep.server.mode import AggregationMode
    from fedstep.server.oidc import Issuer
    from fedstep.server.settings import Settings, Tls

COUNT, POSITIVE = click.IntRange(0), FloatRange(0, min_open=True)
PRIVACY_TERMS = "privacy_delta", "privacy_releases", "privacy_days"

AGGREGATION = combine(
    option("buffer-size", type=click.IntRange(1), default=10, help="Number of updates per aggregation."),
    option(
        "max-wait",
        type=FloatRange(0.1),
        default=60.0,
        help="Maximum seconds to wait before aggregating a partial buffer.",
    ),
    option(
        "min-projects", type=click.IntRange(1), default=1, help="Minimum number of distinct projects per aggregation."
    ),
    option("from-zero", is_flag=True, help="Start with an empty model instead of the starter model."),
    option("no-gate", is_flag=True, help="Make every candidate production without a trial; for demonstrations."),
)
SECURE_AGGREGATION = combine(
    option(
        "role",
        type=click.Choice(["standalone", "leader", "helper"]),
        default="standalone",
        help="Part in secure aggregation: one of two aggregators, or none.",
    ),
    option("peer", metavar="URL", default="", help="Address of the helper, for the leader."),
    option(
        "peer-token", metavar="TOKEN", default="", help="Secret shared by leader and helper. Prefer FEDSTEP_PEER_TOKEN."
    ),
    option(
        "min-projects-per-sum",
        type=click.IntRange(2),
        default=5,
        help="Minimum number of projects in a sum, for leader and helper.",
    ),
    option(
        "noise",
        type=FloatRange(0, MOST_NOISE),
        default=NOISE,
        help="Standard deviation of the noise in a sum, in units of a task's bound, for the leader.",
    ),
)
PRIVACY = combine(
    option(
        "privacy-epsilon",
        type=POSITIVE,
        help="Epsilon of differential privacy per project and lifetime, such as 8. Default: no guarantee.",
    ),
    option("privacy-delta", type=POSITIVE, default=1e-6, help="Delta of the same guarantee."),
    option(
        "privacy-releases",
        type=click.IntRange(1),
        default=52,
        help="Maximum number of contributions per project and lifetime.",
    ),
    option(
        "privacy-days",
        type=POSITIVE,
        default=7.0,
        help="Length of a contribution period in days; a project contributes once per period.",
    ),
)
ACCESS = combine(
    option(
        "oidc",
        metavar="ISSUER",
        multiple=True,
        help="Accept OIDC tokens of this CI: github, gitlab or NAME=URL,like=gitlab.",
    ),
    option("audience", metavar="URL", default="", help="Audience of CI tokens: the URL of this aggregator."),
    option(
        "allow",
        metavar="PATTERN",
        multiple=True,
        help="Projects that may send, such as github:acme/* or, by ids, github#123/*.",
    ),
    option("private-model", is_flag=True, help="Require a token for reading the model, too."),
    option("project-rate", type=COUNT, default=60, help="Maximum updates per project and minute; 0: any."),
    option("project-quota", type=COUNT, default=2000, help="Maximum updates per project and day; 0: any."),
    option("owner-rate", type=COUNT, default=1200, help="Maximum updates per owner and minute; 0: any."),
    option("owner-quota", type=COUNT, default=100000, help="Maximum updates per owner and day; 0: any."),
    option(
        "owner-projects",
        type=COUNT,
        default=200,
        help="Maximum number of projects that an owner's token may name in a week; 0: any.",
    ),
    option(
        "read-rate", type=COUNT, default=3000, help="Maximum reading requests per client address and minute; 0: any."
    ),
    option("tls-cert", metavar="FILE", default="", help="Certificate with its chain, in PEM; serve HTTPS with it."),
    option("tls-key", metavar="FILE", default="", help="Private key of the certificate, in PEM."),
    option(
        "proxy-headers",
        metavar="LIST",
        default="",
        help="Addresses of proxies whose X-Forwarded-For is trusted, comma-separated.",
    ),
    option("log-format", type=click.Choice(["text", "json"]), default="text", help="Format of the log."),
    option(
        "log-level",
        type=click.Choice(["debug", "info", "warning"]),
        default="info",
        help="Minimum log level; debug logs every update.",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """The options of `fedstep serve`, as the command line, the environment or a file gives them."""

    host: str
    port: int
    store: str
    tokens: str
    buffer_size: int
    max_wait: float
    min_projects: int
    from_zero: bool
    no_gate: bool
    role: str
    peer: str
    peer_token: str
    min_projects_per_sum: int
    noise: float
    privacy_epsilon: float | None
    privacy_delta: float
    privacy_releases: int
    privacy_days: float
    oidc: tuple[str, ...]
    audience: str
    allow: tuple[str, ...]
    private_model: bool
    project_rate: int
    project_quota: int
    owner_rate: int
    owner_quota: int
    owner_projects: int
    read_rate: int
    tls_cert: str
    tls_key: str
    proxy_headers: str
    log_format: str
    log_level: str


def pass_options(function: Callable[[ServeOptions], int]) -> Callable[..., int]:
    """Pass the options of a command to `function` as one value."""
    make: Callable[..., ServeOptions] = ServeOptions

    @wraps(function)
    def call(**values: object) -> int:
        return function(make(**values))

    return call


@click.command()
@option("host", metavar="ADDRESS", default="127.0.0.1", help="Address to listen on.")
@option("port", type=click.IntRange(0, 65535), default=8765, help="Port to listen on; 0: any free.")
@STORE
@option("tokens", metavar="LIST", default="", help="Accepted tokens, comma-separated. Prefer FEDSTEP_TOKENS.")
@AGGREGATION
@SECURE_AGGREGATION
@PRIVACY
@ACCESS
@pass_options
def serve(options: ServeOptions) -> int:
    """Run the aggregator until Ctrl-C or SIGTERM.

    \b
    Example: fedstep serve --store sqlite:///fedstep.db
    """
    try:
        from fedstep.server.app import serve as run_server
    except ImportError as error:
        raise missing_extra(error) from error
    gc.enable()  # main turns it off, for the sake of commands that end soon
    settings = _make_settings(options)
    run_server(settings, lambda url: echo_warnings(f"aggregator on {url}, Ctrl-C stops it"), _app_factory(options))
    return 0


def _make_settings(options: ServeOptions) -> "Settings":
    """Return the settings that the options mean. Raise UsageError for options that cannot work."""
    from fedstep.federation.model_cache import load_starter_bytes
    from fedstep.server.gate import Gate
    from fedstep.server.mode import BufferPolicy
    from fedstep.server.rate_limits import Allowances
    from fedstep.server.settings import Settings

    words = (word.strip() for word in options.tokens.split(","))
    rates, quotas = (options.project_rate, options.owner_rate), (options.project_quota, options.owner_quota)
    return Settings(
        host=options.host,
        port=options.port,
        store=options.store,
        tokens=tuple(word for word in words if word),
        starter=b"" if options.from_zero else load_starter_bytes(),
        buffer=BufferPolicy(updates=options.buffer_size, seconds=options.max_wait, projects=options.min_projects),
        gate=None if options.no_gate else Gate(),
        issuers=_issuers(options),
        audience=options.audience,
        allowances=Allowances.of(rates, quotas),
        owner_projects=options.owner_projects,
        read_rate=options.read_rate,
        private_model=options.private_model,
        tls=_tls(options.tls_cert, options.tls_key),
        proxies=_parse_addresses(options.proxy_headers),
        mode=_mode(options),
        log_format=options.log_format,
        log_level=options.log_level,
    )


def _issuers(options: ServeOptions) -> "tuple[Issuer, ...]":
    from fedstep.server.oidc import issuers_of

    issuers = issuers_of(options.oidc, options.allow)
    if bool(issuers) != bool(options.audience):
        raise UsageError("--oidc and --audience need each other", "Give as --audience the URL that clients use.")
    return issuers


def _tls(certificate: str, key: str) -> "Tls | None":
    from fedstep.server.settings import Tls

    if bool(certificate) != bool(key):
        raise UsageError("--tls-cert and --tls-key need each other", "Give both files.")
    return Tls(certificate, key) if certificate else None


def _parse_addresses(text: str) -> tuple[str, ...]:
    addresses = tuple(word.strip() for word in text.split(",") if word.strip())
    for address in addresses:
        try:
            ip_network(address)
        except ValueError as error:
            raise UsageError(
                f"--proxy-headers has {address[:60]!r}, which is no address", "Give ones like 10.0.0.2 or 10.0.0.0/24."
            ) from error
    return addresses


def _mode(options: ServeOptions) -> "AggregationMode":
    """Return how updates are aggregated. Raise UsageError for options that the mode would ignore."""
    _check_mode_options(options)
    if options.privacy_epsilon is not None:
        from fedstep.federation.messages import PrivacyGuarantee
        from fedstep.server.differential_privacy import DifferentialPrivacy

        terms = options.privacy_delta, options.privacy_releases, options.privacy_days
        return DifferentialPrivacy(PrivacyGuarantee(options.privacy_epsilon, *terms))
    if options.role == "leader":
        from fedstep.server.secagg.leader import SecureAggregation

        return SecureAggregation(
            options.peer,
            options.peer_token.strip(),
            min_projects=options.min_projects_per_sum,
            noise=options.noise,
        )
    from fedstep.server.mode import PLAIN

    return PLAIN


def _check_mode_options(options: ServeOptions) -> None:
    if options.role != "leader" and explicit_options("noise"):
        raise UsageError(
            f"--role {options.role} has no noise, and --noise would do nothing",
            "Give it to the leader, or leave it out, in the environment and in files, too.",
        )
    if isnan(options.noise):
        raise UsageError("--noise is not a number", f"Give one from 0 to {MOST_NOISE:g}.")
    if options.privacy_epsilon is not None and options.role != "standalone":
        raise UsageError(
            f"--role {options.role} and --privacy-epsilon exclude each other: the noise of shares is not accounted for",
            "Choose one of the two.",
        )
    idle = () if options.privacy_epsilon is not None else explicit_options(*PRIVACY_TERMS)
    if idle:
        raise UsageError(
            f"without --privacy-epsilon there is no guarantee, and {', '.join(idle)} would do nothing",
            "Give --privacy-epsilon, or leave these out, in the environment and in files, too.",
        )


def _app_factory(options: ServeOptions) -> "AppFactory":
    """Return what makes the application of this role."""
    if options.role == "helper":
        from fedstep.server.secagg.helper import create_helper_app

        return partial(create_helper_app, secret=options.peer_token.strip(), min_projects=options.min_projects_per_sum)
    from fedstep.server.app import create_app

    return create_app
