"""What can go wrong around fedstep, each as a context in which a surface runs, and what the one warning then says."""

import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.helpers.cli import answering, babbling, dead_port, hanging, server
from tests.helpers.surfaces import Job

Around = Callable[[Job], AbstractContextManager[Job]]
HURRY = {"FEDSTEP_TIMEOUT": "3", "FEDSTEP_BUDGET": "60"}  # a loaded machine may need seconds before it asks


def asking(url: str, job: Job, **more: str) -> Job:
    return replace(job, env={**job.env, "FEDSTEP_AGGREGATOR": url, **HURRY, **more})


def behaving(behave: Callable[..., None]) -> Around:
    """An aggregator that behaves so."""

    @contextmanager
    def around(job: Job) -> Iterator[Job]:
        with server(behave) as url:
            yield asking(url, job)

    return around


@contextmanager
def down(job: Job) -> Iterator[Job]:
    """Nobody listens."""
    with dead_port() as url:
        yield asking(url, job)


@contextmanager
def expired(job: Job) -> Iterator[Job]:
    """An aggregator whose certificate, trusted once, is over."""
    certificate, key = certificate_of_yesterday()
    files = (job.outside / "certificate.pem", job.outside / "key.pem")
    for file, content in zip(files, (certificate, key), strict=True):
        file.write_bytes(content)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    # The handshake is the server's first act, before any request is read.
    with server_of_tls(context) as port:
        yield asking(f"https://127.0.0.1:{port}", job, REQUESTS_CA_BUNDLE=str(files[0]))


@contextmanager
def server_of_tls(context: ssl.SSLContext) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as door:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = door.accept()
                    with suppress(OSError), context.wrap_socket(connection, server_side=True):
                        pass

        threading.Thread(target=serve, daemon=True).start()
        yield door.getsockname()[1]
        with suppress(OSError):
            door.shutdown(socket.SHUT_RDWR)


@cache
def certificate_of_yesterday() -> tuple[bytes, bytes]:
    """A certificate for 127.0.0.1 that expired yesterday, and its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "aggregator")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=30))
        .not_valid_after(now - timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return made.public_bytes(pem), secret


@contextmanager
def refusing_proxy(job: Job) -> Iterator[Job]:
    """A proxy on the way that lets nothing through."""
    with server(answering("403 Forbidden")) as proxy:
        yield asking("https://fedstep.invalid", job, HTTPS_PROXY=proxy, NO_PROXY="")


def damaging(*names: str) -> Around:
    """These files of the history hold something else."""

    @contextmanager
    def around(job: Job) -> Iterator[Job]:
        for name in names:
            (job.place.history / name).write_bytes(b"\x00not what it was")
        yield job

    return around


@contextmanager
def damaged_record(job: Job) -> Iterator[Job]:
    """One record is cut, and the caches that knew it are gone."""
    name = job.place.builds()[0]
    record = job.place.history / "builds" / name
    record.write_bytes(record.read_bytes()[:40])
    for cached in ("summary.json", "outlook.json"):
        (job.place.history / cached).unlink()
    yield replace(job, damaged=name)


# What a surface's own mounts do is gone with it, however it ends. "$1" is the checkout, "$2" a folder outside of it.
FULL = """
mkdir -p "$2/real" && mount --bind "$1" "$2/real" && mount -t tmpfs -o size=8m tmpfs "$1" || exit 99
cp -a "$2/real/." "$1/" && cd "$1" && git update-index -q --refresh
root=$1 outside=$2
shift 2
cat /dev/zero >filling 2>/dev/null
"$@"
code=$?
cd "$root" && rm filling && cp -a . "$outside/real/"
exit $code
"""
LOCKED = """
for folder in "$1/.fedstep" "$HOME"; do
    mount --bind "$folder" "$folder" && mount -o remount,ro,bind "$folder" || exit 99
done
shift 2
exec "$@"
"""


def mounting(script: str) -> Around:
    """A disk that is another one for the surface alone."""

    @contextmanager
    def around(job: Job) -> Iterator[Job]:
        alone = ("unshare", "-m") if os.geteuid() == 0 else ("unshare", "-Urm")
        yield replace(job, prefix=(*alone, "sh", "-c", script, "sh", str(job.place.root), str(job.outside)))

    return around


def clock(seconds: int) -> Around:
    """The machine's clock is wrong by so much, for all that Python asks it, and for the time of the report's file.

    (libfaketime breaks Python's `sleep`.)
    """

    @contextmanager
    def around(job: Job) -> Iterator[Job]:
        for report in job.place.root.glob("*.xml"):
            os.utime(report, (time.time() + seconds,) * 2)
        wrong = f"import time\nright = time.time\ntime.time = lambda: right() + {seconds}\n"
        yield with_module(job, "sitecustomize.py", wrong)

    return around


@contextmanager
def without_sklearn(job: Job) -> Iterator[Job]:
    """scikit-learn is not installed."""
    yield with_module(job, "sklearn.py", "raise ImportError('not here', name='sklearn')\n")


def with_module(job: Job, name: str, text: str) -> Job:
    """The job with a module that Python finds before all others."""
    (job.outside / "modules").mkdir()
    (job.outside / "modules" / name).write_text(text)
    return replace(job, env={**job.env, "PYTHONPATH": str(job.outside / "modules")})


class Case(NamedTuple):
    """One failure: what makes it, the surfaces that it touches, and what their one warning names."""

    around: Around
    touches: Sequence[str]
    words: Sequence[str]


ASK = ("train", "push", "pull", "action train", "action triage", "jenkins train", "gitlab", "any CI")
LEARN = ("train", "action train", "jenkins train", "gitlab", "any CI")
MARK = ("predict", "action predict", "jenkins predict")
READ = (*MARK, "triage", "hook")
CASES: dict[str, Case] = {
    "down": Case(down, ASK, ("cannot be reached", "Check the URL")),
    "hanging": Case(behaving(hanging), ASK, ("no answer inside", "Is it up")),
    "500": Case(behaving(answering("500 Internal Server Error")), ASK, ("answered 500", "aggregator's log")),
    "413": Case(behaving(answering("413 Content Too Large")), ASK, ("413", "proxy")),
    "429": Case(behaving(answering("429 Too Many Requests", b"", "Retry-After: 3600")), ASK, ("3600 s", "next build")),
    "garbage": Case(behaving(babbling), ASK, ("cannot be reached", "Check the URL")),
    "expired certificate": Case(expired, ASK, ("certificate has expired", "REQUESTS_CA_BUNDLE")),
    "proxy": Case(refusing_proxy, ASK, ("the proxy", "HTTPS_PROXY")),
    "damaged caches": Case(damaging("summary.json", "outlook.json", "correction.json", "backlog.json"), (), ()),
    "damaged model": Case(damaging("model.safetensors"), (*READ, "any CI"), ("the pulled model cannot be used",)),
    "damaged key": Case(damaging("key"), (*LEARN, *MARK), ("key is damaged", "Delete it")),
    "damaged record": Case(damaged_record, (*LEARN, *READ, "action triage"), ("is skipped",)),
    "full disk": Case(mounting(FULL), (*LEARN, *MARK, "push", "pull", "plugin", "action triage"), ("No space left",)),
    "read-only": Case(mounting(LOCKED), (*LEARN, *MARK, "push", "pull", "action triage"), ("Read-only",)),
    "a year ahead": Case(clock(365 * 86_400), (), ()),
    # GitLab says when the job began, by its own clock.
    "a year behind": Case(clock(-365 * 86_400), ("gitlab",), ("older than this job",)),
    "no scikit-learn": Case(without_sklearn, LEARN, ("sklearn is not installed", "pip install")),
}
