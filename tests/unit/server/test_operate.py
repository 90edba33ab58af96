"""docs/how-to/operate.md, done as it says, in a clean folder."""

import datetime
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fedstep.federation.messages import Update, pack_update, shape
from fedstep.model.linear import zeros
from fedstep.schema.schema import schema
from fedstep.server.metrics import Metrics
from tests.helpers.lifetime import bound, url_of

PAGE = (Path(__file__).parents[3] / "docs/how-to/operate.md").read_text(encoding="utf-8")
LINES = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.S) for line in block.splitlines()]
TOML = re.findall(r"```toml\n(.*?)```", PAGE, re.S)[0]
HERE = ("--host", "127.0.0.1", "--port", "0")  # tests listen on this machine alone, on a free port
BIN = str(Path(sys.executable).parent)


@contextmanager
def started(line: str, folder: Path, env: dict[str, str], umask: int = -1) -> Iterator[str]:
    """The URL of the aggregator that the line starts."""
    log = folder / "serve.log"
    words = bound(sys.executable, "-m", "fedstep", *shlex.split(line)[1:], *HERE)
    with log.open("wb") as file, subprocess.Popen(words, stderr=file, cwd=folder, env=env, umask=umask) as server:
        try:
            yield url_of(server, log)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(20)
    assert server.returncode == 0, log.read_text()


def self_signed(certificate: Path, key: Path) -> None:
    """Writes a certificate that vouches for itself, and its key."""
    private, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(1)
    builder = builder.public_key(private.public_key()).not_valid_before(now)
    made = builder.not_valid_after(now + datetime.timedelta(hours=1)).sign(private, hashes.SHA256())
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    certificate.write_bytes(made.public_bytes(pem))
    key.write_bytes(private.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))


def sent(url: str, token: str, number: int = 1) -> int:
    ours = shape(schema())
    deltas = {"build-duration": zeros(ours.sizes["build-duration"])}
    made = Update(ours.digest, 0, f"{number:032x}", f"{number:032x}", {"build-duration": 8}, deltas)
    headers = {"Idempotency-Key": made.id, "Authorization": f"Bearer {token}"}
    verify = not url.startswith("https")
    return requests.post(f"{url}/v1/updates", pack_update(made), headers=headers, timeout=20, verify=verify).status_code


class TestOperatePage:
    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
    def test_the_page_works_from_the_first_line_to_the_last(self, tmp_path, database):
        self_signed(tmp_path / "fullchain.pem", tmp_path / "key.pem")
        env = {name: value for name, value in os.environ.items() if not name.startswith("FEDSTEP_")}
        env |= {"PATH": f"{BIN}{os.pathsep}{env['PATH']}", "PYTHONSAFEPATH": "1"}
        served, umask = 0, -1
        for line in LINES:
            if line.startswith("export "):
                name, _, value = line.removeprefix("export ").partition("=")
                env[name] = value.replace("postgresql://fedstep:PASSWORD@db.example.org/fedstep", database)
            elif line.startswith("fedstep serve "):
                with started(line, tmp_path, env, umask) as url:
                    served += 1
                    assert sent(url, (tmp_path / "token").read_text().strip(), served) == 202
                    assert sent(url, "a-stranger-s-guess", served) == 401
                    assert requests.get(f"{url}/readyz", timeout=20, verify=False).status_code == 200
            elif line.startswith("fedstep "):
                words = ["bash", "-ec", line]
                done = subprocess.run(words, cwd=tmp_path, env=env, umask=umask, capture_output=True, timeout=60)
                assert done.returncode == 0, (line, done.stderr)
            elif line.startswith("umask "):
                umask = int(line.removeprefix("umask "), 8)
            else:
                # Containers need a daemon; their files are held to linters and to `--help` in test_deploy.
                assert line.startswith(("pip install", "docker compose -f docs/deploy/")), line
        assert served == 4
        for secret in ("token", "fedstep.db", "backup.jsonl.gz"):
            assert (tmp_path / secret).stat().st_mode & 0o077 == 0, f"others read {secret}"

    @pytest.mark.slow
    def test_the_options_of_the_example_file_start_an_aggregator(self, tmp_path):
        env = {name: value for name, value in os.environ.items() if not name.startswith("FEDSTEP_")}
        (tmp_path / ".fedstep.toml").write_text(TOML)
        with started(f"fedstep serve --store sqlite:///{tmp_path}/a.db", tmp_path, env) as url:
            assert sent(url, "a-stranger-s-guess") == 401

    def test_every_figure_on_the_page_is_one_that_the_aggregator_has(self):
        there = Metrics().text().decode()
        named = set(re.findall(r"`(fedstep_\w+)", PAGE))
        assert len(named) > 8
        assert {name for name in named if f"# HELP {name} " not in there} == set()


class TestThreatModel:
    def test_every_test_that_the_threat_model_names_is_there(self):
        model = (Path(__file__).parents[3] / "docs/explanation/threat-model.md").read_text(encoding="utf-8")
        named = re.findall(r"`(test_\w+(?:\.py|\.\.\.)?)`?", model)
        files = list(Path(__file__).parents[2].rglob("test_*.py"))
        names = {path.name for path in files}
        everything = "\n".join(path.read_text(encoding="utf-8") for path in files)
        assert len(named) > 30
        missing = [name for name in named if name not in names and f"def {name.removesuffix('...')}" not in everything]
        assert missing == []
