"""docs/deploy as linters see it, and beside the program: what it names exists, its versions are ours, no secrets."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib.metadata import distribution
from ipaddress import IPv4Network, ip_address
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fedstep import __version__
from fedstep.cli.main import iter_commands
from fedstep.federation.messages import LARGEST_MESSAGE
from tests.helpers.narrow import present

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "docs" / "deploy"
FILES = {path.name: path.read_text(encoding="utf-8") for path in DEPLOY.iterdir()}
COMPOSE = yaml.safe_load(FILES["compose.yaml"])
REPLICAS = {name: one for name, one in COMPOSE["services"].items() if name.startswith("replica")}
OPTIONS = {p.opts[0]: p for path, command in iter_commands() if path == ("serve",) for p in command.params}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def linted(*words: str) -> tuple[int, str]:
    tool = Path(sys.executable).with_name(words[0])
    done = subprocess.run([tool, *words[1:]], cwd=ROOT, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


class TestLinters:
    def test_hadolint_finds_nothing_in_the_dockerfile(self):
        assert linted("hadolint", "docs/deploy/Dockerfile") == (0, "")

    def test_the_compose_file_fits_the_compose_specification(self):
        code, said = linted("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docs/deploy/compose.yaml")
        assert code == 0, said

    def test_caddy_takes_its_file(self):
        caddy = shutil.which("caddy")
        assert caddy, "caddy is not installed: run `make tools`, or apt-get install caddy"
        words = [caddy, "validate", "--adapter", "caddyfile", "--config", str(DEPLOY / "Caddyfile")]
        done = subprocess.run(
            words, env={**os.environ, "FEDSTEP_DOMAIN": "localhost"}, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr


def flag(name: str, value: str) -> tuple[str, str]:
    return next(option for option, found in OPTIONS.items() if found.envvar == name), value


def filled(value: str, answers: Mapping[str, str]) -> str:
    return re.sub(r"\$\{(\w+):\?[^}]*\}", lambda match: answers[match[1]], value)


class TestReplicas:
    def test_every_variable_of_the_replicas_is_one_that_serve_reads(self):
        known = {option.envvar for option in OPTIONS.values()}
        named = set(re.findall(r"^ +(FEDSTEP_\w+)[:=]", FILES["compose.yaml"] + FILES["Dockerfile"], re.M))
        assert len(named) > 5
        assert named - known == {"FEDSTEP_DOMAIN"}, "which is for Caddy alone"
        assert "FEDSTEP_DOMAIN" not in REPLICAS["replica-1"]["environment"]

    def test_the_replicas_start_with_what_the_files_say(self):
        """The replicas start with what the files say: the values go through the parser of the command line."""
        answers = {"FEDSTEP_DOMAIN": "fedstep.example.org", "FEDSTEP_ALLOW": "github:acme/*", "POSTGRES_PASSWORD": "p"}
        baked = dict(re.findall(r"(FEDSTEP_\w+)=(\S+)", FILES["Dockerfile"]))
        given = {**baked, **REPLICAS["replica-1"]["environment"]}
        values = {name: filled(str(value), answers) for name, value in given.items()}
        serve = next(command for path, command in iter_commands() if path == ("serve",))
        found = serve.make_context(
            "serve", [option for name, value in values.items() for option in flag(name, value)]
        ).params
        assert found["host"] == "0.0.0.0"
        assert found["port"] == 8765
        assert found["store"] == "postgresql://fedstep:p@database/fedstep"
        assert found["oidc"] == ("github",)
        assert found["audience"] == "https://fedstep.example.org"
        assert found["allow"] == ("github:acme/*",)

    def test_both_replicas_are_the_same_and_the_proxy_asks_both(self):
        assert len(REPLICAS) == 2
        assert REPLICAS["replica-1"] == REPLICAS["replica-2"]
        asked = re.findall(r"reverse_proxy (.+) \{", FILES["Caddyfile"])[0].split()
        assert asked == [f"{name}:8765" for name in REPLICAS]

    def test_the_proxy_is_the_one_address_that_the_replicas_believe(self):
        proxy = COMPOSE["services"]["proxy"]["networks"]["proxied"]["ipv4_address"]
        assert {one["environment"]["FEDSTEP_PROXY_HEADERS"] for one in REPLICAS.values()} == {proxy}
        assert "request_body" in FILES["Caddyfile"]
        assert LARGEST_MESSAGE < 2 << 20
        assert "max_size 2MiB" in FILES["Caddyfile"], "above the aggregator's own limit, whose answer has a reason"
        assert not any("ports" in one for one in REPLICAS.values()), "nobody else reaches a replica"
        assert "ports" not in COMPOSE["services"]["database"]

    def test_no_container_is_given_the_address_of_the_proxy(self):
        """No container is given the address of the proxy, as Docker assigns from the range and starts with its
        first.
        """
        (pool,) = COMPOSE["networks"]["proxied"]["ipam"]["config"]
        proxy = ip_address(COMPOSE["services"]["proxy"]["networks"]["proxied"]["ipv4_address"])
        subnet, given = IPv4Network(pool["subnet"]), IPv4Network(pool["ip_range"])
        assert given.subnet_of(subnet)
        assert proxy in subnet
        assert proxy not in given


def needed(requirements: list[str]) -> Iterator[tuple[str, list]]:
    """Every distribution that these bring in, with the ranges that each asks of it."""
    ranges: dict[str, list] = {}
    waiting, seen = [Requirement(text) for text in requirements], set()
    while waiting:
        one = waiting.pop()
        name = canonicalize_name(one.name)
        ranges.setdefault(name, []).append(one.specifier)
        if (name, *one.extras) not in seen:
            seen.add((name, *one.extras))
            waiting += [more for text in distribution(name).requires or () if applies(more := Requirement(text), one)]
    return iter(ranges.items())


def applies(requirement: Requirement, parent: Requirement) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *parent.extras))


class TestImages:
    def test_nothing_runs_as_root_and_health_is_readiness(self):
        assert re.search(r"^USER 10001:10001$", FILES["Dockerfile"], re.M)
        assert "/readyz" in present(re.search(r"HEALTHCHECK.*\n.*", FILES["Dockerfile"]))[0]
        assert "health_uri /readyz" in FILES["Caddyfile"]
        assert all(one["read_only"] and one["cap_drop"] == ["ALL"] for one in REPLICAS.values())

    def test_versions_are_the_projects_and_no_image_floats(self):
        """The versions are those of the project, and no image floats."""
        assert set(re.findall(r"fedstep:(\d[\w.]*)", FILES["compose.yaml"] + FILES["Dockerfile"])) == {__version__}
        assert f'image.version="{__version__}"' in FILES["Dockerfile"]
        images = re.findall(r"^FROM (\S+)", FILES["Dockerfile"], re.M)
        images += [one["image"] for name, one in COMPOSE["services"].items() if name not in REPLICAS]
        pinned = r"[a-z]+:\d+\.\d+(\.\d+)?-[a-z-]+@sha256:[0-9a-f]{64}"
        assert all(re.fullmatch(pinned, image) for image in images), images
        assert len(set(re.findall(r"python:(\d\.\d+)", FILES["Dockerfile"]))) == 1

    def test_every_server_library_is_pinned_to_an_allowed_version(self):
        """Every library of the server is pinned to a version that it may have."""
        pinned = {
            one.name: str(one.specifier).removeprefix("==")
            for line in FILES["requirements.txt"].splitlines()
            if not line.startswith(" ") and applies(one := Requirement(line.rstrip(" \\")), one)
        }
        wanted = dict(needed([*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["server"]]))
        assert sorted(set(wanted) - set(pinned)) == []
        assert sorted(set(pinned) - set(wanted)) == []
        wrong = [
            f"{name}=={pinned[name]}" for name, ranges in wanted.items() if not all(pinned[name] in r for r in ranges)
        ]
        assert wrong == []

    def test_no_file_has_a_secret(self):
        for name, text in FILES.items():
            for word, value in re.findall(r"(?<![\w{])(\w*(?:PASSWORD|TOKEN|SECRET|KEY)\w*)[:=] ?(\S+)", text):
                assert value.startswith("${") or value == "...", f"{name} gives {word}"
        assert not re.search(r"://\w+:[^$@/]+@", "".join(FILES.values()))
