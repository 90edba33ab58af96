"""The workflow that publishes the package, run by act with an index on this machine."""

import json
import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from email import message_from_bytes
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from fedstep import __version__
from tests.pipelines.conftest import ActRun

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
WORKFLOW = ROOT / ".github" / "workflows" / "publish.yml"
JOBS: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository of its own with the files of this checkout in one commit."""
    folder = tmp_path / "fedstep"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("tests/", "docs/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    git = ("git", "-c", "user.name=A", "-c", "user.email=a@example.org", "-C", str(folder))
    for words in (
        ("init", "-q", "-b", "main"),
        ("remote", "add", "origin", "https://github.com/fedstep/fedstep.git"),
        ("add", "-A"),
        ("commit", "-q", "-m", "Release"),
    ):
        subprocess.run([*git, *words], check=True, timeout=60)
    return folder


@pytest.fixture
def workflow(act: Callable[..., ActRun], tmp_path: Path) -> Callable[..., ActRun]:
    """Return a function that runs the workflow, or some of its jobs, for a tag."""

    def run(tag: str, *jobs: str, **variables: str) -> ActRun:
        event = tmp_path / "event.json"
        event.write_text(json.dumps({"ref": f"refs/tags/{tag}"}))
        stand_ins = {
            use: HERE / "stand-ins" / name
            for use in re.findall(r"uses: ([\w-]+/[\w-]+@\w+)", WORKFLOW.read_text(encoding="utf-8"))
            for name in ("setup-python", "upload-artifact", "download-artifact", "attest", "pypi-publish")
            if f"{name}@" in use
        }
        flags = [flag for use, folder in stand_ins.items() for flag in ("--local-repository", f"{use}={folder}")]
        registry = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_"))}
        chosen = [flag for job in jobs for flag in ("-j", job)]
        return act(WORKFLOW, *chosen, "-e", str(event), *flags, **registry, **variables)

    return run


@pytest.fixture
def build(workflow: Callable[..., ActRun]) -> Callable[[str], ActRun]:
    """Return a function that runs the job `build` for a tag."""
    return lambda tag: workflow(tag, "build")


@pytest.fixture
def index() -> Iterator[tuple[str, dict[str, str]]]:
    """Return the URL of an index on this machine that takes uploads, and the digest of each file that came."""
    taken: dict[str, str] = {}

    class Upload(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
            body = self.rfile.read(int(self.headers["Content-Length"]))
            for part in message_from_bytes(head + body).walk():
                content = part.get_payload(decode=True)
                if (name := part.get_filename()) and isinstance(content, bytes):
                    taken[name] = sha256(content).hexdigest()
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Upload)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/legacy/", taken
    server.shutdown()
    server.server_close()


class TestBuild:
    """The job that builds and checks the distributions."""

    @pytest.mark.full
    def test_keeps_the_distributions_of_the_tag(self, build: Callable[[str], ActRun]) -> None:
        """The wheel is installed and run by the workflow; here its content is checked."""
        run = build(f"v{__version__}")
        assert run.code == 0, run.log
        wheel_name, sdist_name = f"fedstep-{__version__}-py3-none-any.whl", f"fedstep-{__version__}.tar.gz"
        names = sorted(path.name for path in (run.kept / "distributions").iterdir() if path.name != ".gitignore")
        assert names == [wheel_name, sdist_name]
        assert f"fedstep, version {__version__}" in run.log
        with zipfile.ZipFile(run.kept / "distributions" / wheel_name) as wheel:
            top = {name.partition("/")[0] for name in wheel.namelist()}
        assert top == {"fedstep", f"fedstep-{__version__}.dist-info"}
        components = json.loads((run.kept / "sbom" / "fedstep.cdx.json").read_text())
        assert components["bomFormat"] == "CycloneDX"
        named = {one["name"] for one in components["components"]}
        assert {"click", "safetensors", "scikit-learn", "starlette"} <= named
        assert "pytest" not in named

    @pytest.mark.full
    def test_stops_when_the_tag_is_not_the_version(self, build: Callable[[str], ActRun]) -> None:
        """A forgotten version bump must not reach PyPI, where a version can never be replaced."""
        run = build("v99.0.0")
        assert run.code != 0
        assert "The tag is v99.0.0" in run.log
        assert not (run.kept / "distributions").exists()


class TestUpload:
    """All jobs: build, attest and upload, with an index on this machine in place of PyPI."""

    @pytest.mark.full
    def test_exactly_what_was_built_is_attested_and_uploaded(
        self, workflow: Callable[..., ActRun], index: tuple[str, dict[str, str]]
    ) -> None:
        """The same bytes in each job. Signing and trusted publishing have no issuer here and are stand-ins."""
        url, taken = index
        run = workflow(f"v{__version__}", STUB_INDEX=url)
        assert run.code == 0, run.log
        built = {
            path.name: sha256(path.read_bytes()).hexdigest()
            for path in (run.kept / "distributions").iterdir()
            if path.name != ".gitignore"
        }
        assert len(built) == 2
        assert taken == built
        attested = [line.split() for line in (run.kept / "attested").read_text().splitlines()]
        assert {(Path(path).name, digest) for digest, path, *_ in attested} == set(built.items())
        assert sorted(len(line) for line in attested) == [2, 2, 3, 3], "the provenance, and the components"

    @pytest.mark.full
    def test_nothing_is_uploaded_where_the_build_fails(
        self, workflow: Callable[..., ActRun], index: tuple[str, dict[str, str]]
    ) -> None:
        url, taken = index
        run = workflow("v99.0.0", STUB_INDEX=url)
        assert run.code != 0
        assert taken == {}
        assert not (run.kept / "attested").exists()


class TestPrivileges:
    """The permissions of the jobs."""

    def test_only_the_upload_may_ask_for_an_identity(self) -> None:
        """Code of the repository and of its build tools runs in the job that has no privilege."""
        assert yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["permissions"] == {}
        assert JOBS["build"]["permissions"] == {"contents": "read"}
        assert JOBS["attest"]["permissions"] == {"attestations": "write", "id-token": "write"}
        assert JOBS["upload"]["permissions"] == {"id-token": "write"}

    def test_what_is_uploaded_was_attested(self) -> None:
        """Its provenance and its components are signed by the workflow before PyPI gets it."""
        assert JOBS["upload"]["needs"] == ["build", "attest"]
        signed = [step["with"] for step in JOBS["attest"]["steps"] if "actions/attest@" in step["uses"]]
        assert [sorted(given) for given in signed] == [["subject-path"], ["sbom-path", "subject-path"]]

    def test_the_upload_runs_no_shell_and_uses_no_secret(self) -> None:
        """Trusted publishing needs no password; the environment asks a maintainer for a review."""
        steps = JOBS["upload"]["steps"]
        assert [step for job in ("attest", "upload") for step in JOBS[job]["steps"] if "run" in step] == []
        assert "secrets." not in WORKFLOW.read_text(encoding="utf-8")
        assert JOBS["upload"]["environment"]["name"] == "pypi"
        assert steps[-1]["with"]["attestations"] is True
