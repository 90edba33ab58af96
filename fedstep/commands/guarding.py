"""Options of `serve` that say who may come in, how often, and over what."""

from typing import Any

import click

from fedstep.commands.options import Given, option, together
from fedstep.errors import UsageError

__all__ = ["GUARDS", "guards"]

MANY, LEVEL = click.IntRange(0), click.Choice(["debug", "info", "warning"])
GUARDS = together(
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


def guards(given: Given) -> dict[str, Any]:
    """The settings that these options mean, by name. Raises UsageError for some that cannot work."""
    from fedstep.server.issuers import issuers_of
    from fedstep.server.limits import Allowances

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
