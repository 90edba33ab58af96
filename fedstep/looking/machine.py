"""What a doctor sees of this machine: what is installed, the space that is left, the way to the network."""

import os
import shutil
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from urllib.parse import urlsplit

from fedstep import __version__
from fedstep.federation.transport import redacted
from fedstep.report.diagnosis import OK, PROBLEM, WARNING, Check

__all__ = ["check_disk", "check_packages", "check_proxies", "installed"]

LEAST_SPACE, LITTLE_SPACE = 50_000_000, 500_000_000  # bytes
OLDEST_SKLEARN = (1, 9)
INSTALL = "pip install 'fedstep[train]'"
PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")
BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def check_packages(in_ci: bool) -> tuple[Check, ...]:
    """The versions of fedstep and of what it needs."""
    ours = f"fedstep {__version__}, Python {sys.version.split()[0]} on {sys.platform}"
    light = ", ".join(f"{name} {installed(name) or 'missing'}" for name in ("click", "requests", "safetensors"))
    return (Check("Versions", OK, f"{ours}; {light}"), _sklearn(in_ci))


def installed(name: str, module: str = "") -> str:
    """The version of an installed distribution, "" where it, or its module, is not there. Nothing is imported."""
    try:
        return version(name) if find_spec(module or name) else ""
    except (PackageNotFoundError, ImportError, ValueError):
        return ""


def _sklearn(in_ci: bool) -> Check:
    found = installed("scikit-learn", "sklearn")
    others = ", ".join(f"{name} {installed(name) or 'missing'}" for name in ("numpy", "scipy"))
    if not found:
        missing = "scikit-learn is not installed: builds are kept and learned later"
        return Check("Learning", PROBLEM if in_ci else WARNING, missing, f"{INSTALL} (predict and triage need nothing)")
    digits = (piece for piece in found.split(".")[:2])
    if tuple(int(piece) if piece.isdecimal() else 0 for piece in digits) < OLDEST_SKLEARN:
        return Check("Learning", PROBLEM, f"scikit-learn {found} is older than 1.9", INSTALL)
    return Check("Learning", PROBLEM if "missing" in others else OK, f"scikit-learn {found}, {others}")


def check_disk(folder: str) -> Check:
    """The space left where the history lives."""
    while not os.path.isdir(folder) and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Check("Disk", WARNING, f"the space of {folder} is unknown: {error.strerror}")
    state = PROBLEM if free < LEAST_SPACE else WARNING if free < LITTLE_SPACE else OK
    return Check("Disk", state, f"{free / 1e9:,.1f} GB free at {folder}", "Free space" if state != OK else "")


def check_proxies(env: Mapping[str, str], url: str) -> Check:
    """The variables that decide how requests travel."""
    found = {name: env.get(name) or env.get(name.lower(), "") for name in PROXIES}
    bundles = {name: env[name] for name in BUNDLES if env.get(name)}
    missing = [name for name, path in bundles.items() if not os.path.exists(path)]
    told = [f"{name}={value if name == 'NO_PROXY' else redacted(value)}" for name, value in found.items() if value]
    says = ", ".join([*told, *(f"{name}={path}" for name, path in bundles.items())]) or "no proxy is set"
    if missing:
        return Check("Network", PROBLEM, f"{says}; the file is not there", f"Correct {missing[0]}, or unset it")
    host = _host(url)
    if host in ("localhost", "127.0.0.1", "::1") and _proxied(found) and host not in found["NO_PROXY"]:
        return Check(
            "Network", WARNING, f"{says}: a proxy for {host}, which it cannot reach", f"export NO_PROXY={host}"
        )
    return Check("Network", OK, says)


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _proxied(found: Mapping[str, str]) -> bool:
    return bool(found["HTTP_PROXY"] or found["HTTPS_PROXY"] or found["ALL_PROXY"])
