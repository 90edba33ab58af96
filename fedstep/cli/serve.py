"""The aggregator's side."""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from math import isnan
from typing import TYPE_CHECKING, Any

import click

from fedstep.cli.options import STORE, Options, combine, explicit_options, option
from fedstep.cli.output import echo_result, echo_warnings
from fedstep.cli.server_admin import export, import_, token
from fedstep.errors import MissingExtra, UsageError
from fedstep.federation.messages import MOST_NOISE, NOISE

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from fedstep.server.settings import Settings
    from fedstep.server.storage.store import Store

MANY, LEVEL = click.IntRange(0), click.Choice(["debug", "info", "warning"])
GUARDS = combine(
    option("oidc", metavar="ISSUER", multiple=True, help="Accept its CI tokens: github, gitlab, NAME=URL,like=gitlab."),
    option("audience", metavar="URL", default="", help="What CI tokens are made for: the URL that clients have."),
    option("allow", metavar="PATTERN", multiple=True, help="Projects let in: github:acme/*, by ids github#123/*."),
    option("private-model", is_flag=True, help="Reading the model needs a token, too."),
    option("project-rate", type=MANY, default=60, show_default=True, help="Updates a minute of a project; 0: any."),
    option("project-quota", type=MANY, default=2000, show_default=True, help="Updates a day of a project; 0: any."),
    option("owner-rate", type=MANY, default=1200, show_default=True, help="Updates a minute of an owner; 0: any."),
    option("owner-quota", type=MANY, default=100000, show_default=True, help="Updates a day of an owner; 0: any."),
    option("tls-cert", metavar="FILE", default="", help="Certificate with its chain, in PEM: serve HTTPS."),
    option("tls-key", metavar="FILE", default="", help="Its key, in PEM."),
    option("proxy-headers", metavar="LIST", default="", help="Addresses of proxies whose headers are believed."),
    option("log-format", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Of the log."),
    option(
        "log-level", type=LEVEL, default="info", show_default=True, help="Least that is logged; debug: every update."
    ),
)


def guards(given: Options) -> dict[str, Any]:
    """The settings that these options mean, by name. Raises UsageError for some that cannot work."""
    from fedstep.server.oidc import issuers_of
    from fedstep.server.rate_limits import Allowances

    issuers = issuers_of(given["oidc"], given["allow"])
    if bool(issuers) != bool(given["audience"]):
        raise UsageError("--oidc and --audience need each other", "Give as --audience the URL that clients have.")
    return {
        "issuers": issuers,
        "audience": given["audience"],
        "allowances": Allowances.of(
            (given["project_rate"], given["owner_rate"]), (given["project_quota"], given["owner_quota"])
        ),
        "private_model": given["private_model"],
        "tls": _tls(given["tls_cert"], given["tls_key"]),
        "proxies": _addresses(given["proxy_headers"]),
        "log_format": given["log_format"],
        "log_level": given["log_level"],
    }


def _tls(certificate: str, key: str) -> Any:
    from fedstep.server.settings import Tls

    if bool(certificate) != bool(key):
        raise UsageError("--tls-cert and --tls-key need each other", "Give both files.")
    return Tls(certificate, key) if certificate else None


def _addresses(listed: str) -> tuple[str, ...]:
    from ipaddress import ip_network

    found = tuple(word.strip() for word in listed.split(",") if word.strip())
    for address in found:
        try:
            ip_network(address)
        except ValueError as error:
            raise UsageError(
                f"--proxy-headers has {address[:60]!r}, which is no address", "Give ones like 10.0.0.2 or 10.0.0.0/24."
            ) from error
    return found


TERMS = "privacy_delta", "privacy_releases", "privacy_days"
RANGE = click.FloatRange(0, min_open=True)

PROMISING = combine(
    option("privacy-epsilon", type=RANGE, help="Differential privacy: what a project reveals in its life; 8."),
    option("privacy-delta", type=RANGE, default=1e-6, show_default=True, help="The chance that it reveals more."),
    option(
        "privacy-releases",
        type=click.IntRange(1),
        default=52,
        show_default=True,
        help="Batches a project contributes in its life.",
    ),
    option("privacy-days", type=RANGE, default=7.0, show_default=True, help="Days in which it contributes one."),
)


def _check_privacy_terms() -> None:
    """Raise UsageError where terms of a privacy guarantee were given: without an epsilon there is none."""
    idle = explicit_options(*TERMS)
    if idle:
        raise UsageError(
            f"without --privacy-epsilon nothing is promised, and {', '.join(idle)} would do nothing",
            "Give --privacy-epsilon, or leave these out, in the environment and in files, too.",
        )


SHARING = combine(
    option(
        "role",
        type=click.Choice(["alone", "leader", "helper"]),
        default="alone",
        show_default=True,
        help="One of two that share updates between them.",
    ),
    option("peer", metavar="URL", default="", help="Of a leader: its helper."),
    option("peer-token", metavar="TOKEN", default="", help="The same for both; keep it in FEDSTEP_PEER_TOKEN."),
    option("fewest", type=click.IntRange(2), default=5, show_default=True, help="Projects in a sum, at least."),
    option(
        "noise",
        type=click.FloatRange(0, MOST_NOISE),
        default=NOISE,
        show_default=True,
        help="In such a sum, in units of a head's bound.",
    ),
)


def _mode(given: Options) -> dict[str, Any]:
    """Return the setting `mode` where these options ask for another than the plain one. Raise UsageError."""
    role, private = given["role"], given["privacy_epsilon"] is not None
    if role != "leader" and explicit_options("noise"):
        raise UsageError(
            f"--role {role} has no noise, and --noise would do nothing",
            "Give it to the leader, or leave it out, in the environment and in files, too.",
        )
    if isnan(given["noise"]):
        raise UsageError("--noise is not a number", f"Give one from 0 to {MOST_NOISE:g}.")
    if private and role != "alone":
        raise UsageError(
            f"of --role {role} no noise is accounted for, and --privacy-epsilon promises that", "Choose one of the two."
        )
    if private:
        from fedstep.federation.messages import PrivacyGuarantee
        from fedstep.server.dp.private_step import DifferentialPrivacy

        terms = PrivacyGuarantee(*(given[name] for name in ("privacy_epsilon", *TERMS)))
        return {"mode": DifferentialPrivacy(terms)}
    _check_privacy_terms()
    if role == "leader":
        from fedstep.server.secagg.secure_aggregation import SecureAggregation

        return {
            "mode": SecureAggregation(
                given["peer"], given["peer_token"].strip(), min_projects=given["fewest"], noise=given["noise"]
            )
        }
    return {}


def _app_factory(given: Options) -> "Callable[[Settings], Starlette]":
    """Return what makes the application of this role."""
    if given["role"] == "helper":
        from fedstep.server.secagg.helper import create_helper_app

        return partial(create_helper_app, secret=given["peer_token"].strip(), min_projects=given["fewest"])
    from fedstep.server.app import create_app

    return create_app


@click.command()
@option("host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Address to listen on.")
@option("port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="Port; 0 takes any free one.")
@STORE
@option("tokens", metavar="LIST", default="", help="Accepted tokens, comma-separated; keep them in FEDSTEP_TOKENS.")
@option("buffer", type=click.IntRange(1), default=10, show_default=True, help="Updates folded at once.")
@option("wait", type=click.FloatRange(0.1), default=60.0, show_default=True, help="Seconds before fewer are folded.")
@option("projects", type=click.IntRange(1), default=1, show_default=True, help="Distinct projects that needs.")
@option("from-zero", is_flag=True, help="Begin with an empty model instead of the starter model.")
@option("ungated", is_flag=True, help="Predict with every new head at once, untested: for demonstrations.")
@SHARING
@PROMISING
@GUARDS
def serve(**given: Any) -> int:
    """Run the aggregator.

    \b
    Example: fedstep serve --store sqlite:///fedstep.db
    """
    try:
        from fedstep.server.aggregation.policy import BufferPolicy
        from fedstep.server.gate import Gate
        from fedstep.server.run import serve as run_server
        from fedstep.server.settings import Settings
    except ImportError as error:
        raise _missing(error) from error
    from fedstep.federation.model_cache import load_starter_bytes

    tokens = tuple(token for token in (word.strip() for word in given["tokens"].split(",")) if token)
    folding = BufferPolicy(updates=given["buffer"], seconds=given["wait"], projects=given["projects"])
    gc.enable()  # the one command that stays
    starter = b"" if given["from_zero"] else load_starter_bytes()
    gate = None if given["ungated"] else Gate()
    settings = Settings(given["host"], given["port"], given["store"], tokens, starter, folding=folding, gate=gate)
    settings = replace(settings, **guards(given), **_mode(given))
    run_server(settings, lambda url: echo_warnings(f"aggregator on {url}, Ctrl-C stops it"), _app_factory(given))
    return 0


@click.group()
def server() -> None:
    """Look after an aggregator's store; it may be running."""


for command in (token, export, import_):
    server.add_command(command)


@server.command()
@STORE
def status(**given: Any) -> int:
    """Say what is served, what is on trial and what waits.

    \b
    Example: fedstep server status --store sqlite:///fedstep.db
    """
    with _opened(given["store"]) as store:
        from fedstep.cli.server_text import format_status

        echo_result(format_status(store.lineage(1), store.pending(), store.active(time.time())))
    return 0


@server.command()
@STORE
@option("most", type=click.IntRange(1), default=20, show_default=True, help="Versions and verdicts shown.")
def versions(**given: Any) -> int:
    """List the newest versions, and every verdict with the figures that led to it.

    \b
    Example: fedstep server versions --store sqlite:///fedstep.db
    """
    with _opened(given["store"]) as store:
        from fedstep.cli.server_text import format_versions

        echo_result(format_versions(store.lineage(given["most"])))
    return 0


@server.command()
@click.argument("version", type=click.IntRange(0))
@STORE
def rollback(version: int, **given: Any) -> int:
    """Make what production was at VERSION production and candidate again; a running aggregator follows in a second.

    \b
    Example: fedstep server rollback 41 --store sqlite:///fedstep.db
    """
    with _opened(given["store"]) as store:
        made = store.roll_back(version, time.time())
    echo_result(f"version {made.version}: production and head are what production was at version {version}\n")
    return 0


@contextmanager
def _opened(url: str) -> "Iterator[Store]":
    """The store of an aggregator, which has to be there. Raises UsageError."""
    try:
        from fedstep.server.storage.engine import require_store
        from fedstep.server.storage.store import Store
    except ImportError as error:
        raise _missing(error) from error
    from fedstep.federation.messages import shape
    from fedstep.schema.schema import schema

    store = Store(require_store(url), shape(schema()))
    try:
        yield store
    finally:
        store.close()


def _missing(error: ImportError) -> MissingExtra:
    return MissingExtra(f"{error.name} is not installed", "Run: pip install 'fedstep[server]'")
