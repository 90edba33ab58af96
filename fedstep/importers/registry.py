"""Open the source of past builds that a path or the options name: each format and each service, with its token.

To add a source: a module with a function that returns an `ImportSource`, and one branch here.
"""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from fedstep.errors import InputError, UsageError
from fedstep.history.project_store import ProjectStore
from fedstep.importers.api_client import ApiClient, RateLimitPolicy, ResponseCache, requests_getter
from fedstep.importers.base import BuildFilter, ImportSource
from fedstep.importers.folder import open_folder

TABLES = ("builds.csv", "builds.csv.gz", "results.csv", "results.csv.gz")


def open_path(path: Path, build_filter: BuildFilter) -> ImportSource:
    """Return the past builds at this path, whose content decides the format. Raise InputError where there are none."""
    if path.is_file() or any((path / name).is_file() for name in TABLES):
        from fedstep.importers.csv_tables import open_tables

        return open_tables(path, build_filter)
    if (path / "jobs").is_dir() or (path / "builds").is_dir():
        from fedstep.importers.jenkins_home import open_jenkins_home

        source = open_jenkins_home(path, build_filter)
    else:
        source = open_folder(path, build_filter)
    if not source.total and not build_filter.is_limited():
        remedy = "Give a folder of builds with a build.json each, builds.csv or results.csv, or a Jenkins home"
        raise InputError(f"no recorded build was found in {path}", remedy)
    return source


GITHUB, GITLAB = "https://api.github.com", "https://gitlab.com/api/v4"


class ServiceOptions(NamedTuple):
    """The options of `backfill` that name a source: a path or URL, or a project of GitHub or GitLab; "" if not set."""

    source: str = ""
    github: str = ""
    gitlab: str = ""
    api: str = ""
    user: str = ""
    artifacts: tuple[str, ...] = ()


def open_service(
    options: ServiceOptions,
    env: Mapping[str, str],
    store: ProjectStore,
    build_filter: BuildFilter,
    rate_limits: RateLimitPolicy,
) -> ImportSource:
    """Return the past builds of the service that the options name. Raise UsageError for an unusable option or token."""
    if options.github:
        from fedstep.importers.github import open_github

        client = _github_client(options.api or env.get("GITHUB_API_URL") or GITHUB, env, store, rate_limits)
        return open_github(client, _check_project(options.github, "--github"), build_filter, options.artifacts)
    if options.gitlab:
        from fedstep.importers.gitlab import open_gitlab

        client = _gitlab_client(options.api or env.get("CI_API_V4_URL") or GITLAB, env, store, rate_limits)
        return open_gitlab(client, _check_project(options.gitlab, "--gitlab"), build_filter)
    from fedstep.importers.jenkins_server import open_jenkins_server

    return open_jenkins_server(_jenkins_client(options.source, options.user, env, store, rate_limits), build_filter)


def _github_client(url: str, env: Mapping[str, str], store: ProjectStore, rate_limits: RateLimitPolicy) -> ApiClient:
    token = _read_token(env, "GITHUB_TOKEN", "GH_TOKEN")
    remedy = "Check the name, and that GITHUB_TOKEN may read the actions of this repository"
    secret = {"X-GitHub-Api-Version": "2022-11-28", **_bearer_header(token)}
    return ApiClient(requests_getter(secret), _check_url(url), ResponseCache(store), rate_limits, remedy)


def _gitlab_client(url: str, env: Mapping[str, str], store: ProjectStore, rate_limits: RateLimitPolicy) -> ApiClient:
    token = _read_token(env, "GITLAB_TOKEN")
    remedy = "Check the name, and that GITLAB_TOKEN has the scope read_api"
    return ApiClient(requests_getter(_bearer_header(token)), _check_url(url), ResponseCache(store), rate_limits, remedy)


def _jenkins_client(
    url: str, user: str, env: Mapping[str, str], store: ProjectStore, rate_limits: RateLimitPolicy
) -> ApiClient:
    token = _read_token(env, "FEDSTEP_JENKINS_TOKEN", "JENKINS_TOKEN")
    remedy = "Check the URL, and give --user and an API token of that user in FEDSTEP_JENKINS_TOKEN"
    if bool(user) != bool(token):
        raise UsageError("--user and FEDSTEP_JENKINS_TOKEN belong together", "Give both, or none")
    pair = base64.b64encode(f"{user}:{token}".encode()).decode()
    secret = {"Authorization": f"Basic {pair}"} if user else {}
    return ApiClient(requests_getter(secret), _check_url(url), ResponseCache(store), rate_limits, remedy)


def _read_token(env: Mapping[str, str], *names: str) -> str:
    token = next((env[name].strip() for name in names if env.get(name, "").strip()), "")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(f"{names[0]} has a character that no token has", "Copy it again")
    return token


def _bearer_header(token: str) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def _check_project(name: str, option: str) -> str:
    """Return the name. Raise UsageError for what cannot be part of a URL."""
    usable = all(part not in ("", ".", "..") for part in name.split("/")) and not set(name) & set("?#%\\ ")
    if not usable or not name.isprintable() or (option == "--github" and name.count("/") != 1):
        form = "OWNER/REPO" if option == "--github" else "a number or GROUP/NAME"
        raise UsageError(f"{option} {name[:100]} names no project", f"Give {form}")
    return name


def _check_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.username or parts.password:
        raise UsageError(
            "the URL of the API cannot be used", "Give one like https://ci.example.org, tokens in the environment"
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
