"""What GitLab does with a component, in small: inputs checked and put in, `extends`, a job run by a shell."""

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

TEMPLATES = Path(__file__).parents[2] / "actions" / "gitlab" / "templates"
INPUT = re.compile(r"\$\[\[ inputs\.(\w+) \]\]")
SHELLS = {"bash": ("bash", "-eo", "pipefail"), "dash": ("dash", "-e")}
KINDS = {"string": str, "number": int, "boolean": bool}


@dataclass(frozen=True)
class Job:
    """One finished job: how it ended, its log, and that of its after_script alone."""

    code: int
    log: str
    after: str


class InputRefused(Exception):
    """GitLab would not create the pipeline."""


def pipeline(text: str) -> dict[str, Any]:
    """The jobs of a `.gitlab-ci.yml`, its components included and `extends` resolved; hidden jobs are left out."""
    given = yaml.safe_load(text)
    jobs: dict[str, Any] = {}
    for entry in given.pop("include", []):
        name = entry["component"].rpartition("/")[2].partition("@")[0]
        jobs |= component(name, entry.get("inputs", {}))
    jobs |= given
    resolved = {name: merged(jobs[job["extends"]], job) if "extends" in job else job for name, job in jobs.items()}
    return {name: job for name, job in resolved.items() if not name.startswith(".")}


def component(name: str, inputs: Mapping[str, object]) -> dict[str, Any]:
    """The jobs of a component with its inputs put in."""
    spec, body = yaml.safe_load_all((TEMPLATES / f"{name}.yml").read_text(encoding="utf-8"))
    declared = spec["spec"]["inputs"]
    if unknown := set(inputs) - set(declared):
        raise InputRefused(f"unknown: {unknown}")
    values = {key: checked(key, about, inputs.get(key, about.get("default"))) for key, about in declared.items()}
    jobs: dict[str, Any] = put_in(body, values)
    return jobs


def checked(key: str, about: Mapping[str, Any], value: object) -> object:
    """The value, if GitLab takes it: it is given, of the type, one of the options, and fits the pattern."""
    right = isinstance(value, KINDS[about.get("type", "string")])
    right = right and ("options" not in about or value in about["options"])
    if not right or ("regex" in about and not re.search(about["regex"], str(value))):
        raise InputRefused(f"{key}: {value!r}")
    return value


def put_in(node: Any, values: Mapping[str, object]) -> Any:
    """The node with all `$[[ inputs.x ]]` replaced; one that stands alone keeps its type."""
    if isinstance(node, dict):
        return {put_in(key, values): put_in(value, values) for key, value in node.items()}
    if isinstance(node, list):
        return [put_in(item, values) for item in node]
    if not isinstance(node, str):
        return node
    alone = INPUT.fullmatch(node)
    return values[alone[1]] if alone else INPUT.sub(lambda found: str(values[found[1]]), node)


def merged(base: Mapping[str, Any], job: Mapping[str, Any]) -> dict[str, Any]:
    """A job on top of the one it extends: hashes are merged, all else is replaced."""
    both = {key: base[key] for key in base.keys() & job.keys()}
    deep = {key: merged(one, job[key]) for key, one in both.items() if isinstance(one, dict)}
    return {**base, **job, **deep}


def run_job(
    job: Mapping[str, Any], folder: Path, env: Mapping[str, str], shell: Sequence[str], sign: Any = None
) -> Job:
    """The job, as a runner runs it: before_script and script in one shell, after_script in another, always.

    `sign` makes an ID token for an audience.
    """
    told = {key: str(value) for key, value in job.get("variables", {}).items()}
    variables = {**told, **env}  # a project's variables outrank those of the file
    variables = {key: expanded(value, variables) for key, value in variables.items()}
    for name, token in job.get("id_tokens", {}).items():
        variables[name] = sign(expanded(token["aud"], variables)) if sign else ""
    code, log = run_script(job.get("before_script", []) + job["script"], folder, variables, shell)
    status = env.get("CI_JOB_STATUS") or ("failed" if code else "success")
    _, after = run_script(job.get("after_script", []), folder, {**variables, "CI_JOB_STATUS": status}, shell)
    return Job(code, log, after)


def run_script(lines: Sequence[str], folder: Path, env: Mapping[str, str], shell: Sequence[str]) -> tuple[int, str]:
    done = subprocess.run(
        [*shell, "-c", "\n".join(lines)], cwd=folder, env=dict(env),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300,
    )  # fmt: skip
    return done.returncode, done.stdout


def expanded(text: str, variables: Mapping[str, str]) -> str:
    return re.sub(r"\$(\w+)", lambda name: variables.get(name[1], ""), text)


def gitlab_variables(folder: Path, number: int, started: str, **more: str) -> dict[str, str]:
    """What a runner sets for the job `test` of a branch pipeline."""
    return {
        "PATH": os.environ["PATH"],
        "CI": "true",
        "GITLAB_CI": "true",
        "CI_SERVER_FQDN": "gitlab.example.org",
        "CI_PIPELINE_ID": str(number),
        "CI_PIPELINE_SOURCE": "push",
        "CI_JOB_ID": str(100 + number),
        "CI_JOB_NAME": "test",
        "CI_JOB_NAME_SLUG": "test",
        "CI_JOB_STARTED_AT": started,
        "CI_COMMIT_REF_NAME": "main",
        "CI_PROJECT_DIR": str(folder),
        "HOME": str(folder.parent),
        **more,
    }
