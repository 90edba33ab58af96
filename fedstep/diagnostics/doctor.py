"""Check this job and its history: CI, start, change, reports, history folder, model, and what waits to be sent."""

import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from fedstep import __version__
from fedstep.errors import HistoryError
from fedstep.federation.messages import PrivacyGuarantee
from fedstep.federation.model_cache import CachedModel, load_model, load_terms
from fedstep.federation.outbox import DAMAGED, SUFFIX
from fedstep.federation.sync import AggregatorLink, ContributionLog, load_contributions
from fedstep.federation.trust import redact_url
from fedstep.history.project_store import ProjectStore, list_folder, remove
from fedstep.history.summary import LoadedSummary, Summary, load_summary
from fedstep.ingest.change_impact import count_tests
from fedstep.ingest.ci_vendors import FEDSTEP_VARIABLES, clone_advice
from fedstep.ingest.git import compile_globs, read_change, read_outgoing
from fedstep.ingest.git_process import GitResult, is_shallow, repository_root, run_git
from fedstep.ingest.junit import expand, read_reports
from fedstep.pipeline.context import RunContext, in_ci
from fedstep.report.ci_outputs import KEYS
from fedstep.report.units import count, size, span
from fedstep.report.wording import describe_selections
from fedstep.results import OK, PROBLEM, WARNING, Diagnosis, DiagnosticCheck
from fedstep.schema.schema import schema
from fedstep.types import CiRun, Dropped, Unavailable

MOST_REPORTS = 20_000_000  # bytes of reports that are read; of more only the files are counted
GIT_SECONDS = 1.0


def check_ci(ci: CiRun) -> DiagnosticCheck:
    """Which CI this is and what it tells of the job."""
    if ci.vendor == "local":
        return DiagnosticCheck("CI", OK, "none: a developer's machine")
    facts = (("run", ci.run), ("workflow", ci.workflow), ("job", ci.job), ("branch", ci.branch), ("event", ci.event))
    summary = ", ".join(f"{name} {value}" for name, value in facts if value)
    if ci.untrusted:
        return DiagnosticCheck(
            "CI", WARNING, f"{ci.vendor}, {summary}: from a fork or Dependabot, nothing is learned or sent"
        )
    if not ci.run:
        fix = "export FEDSTEP_CI_RUN=<a number of this run>, FEDSTEP_CI_JOB and FEDSTEP_CI_BRANCH"
        return DiagnosticCheck("CI", WARNING, f"{ci.vendor}: it does not tell which run this is", fix)
    if not ci.job:
        says = f"{ci.vendor}, {summary}: it gives this job no name, and all its jobs share one stream of times"
        return DiagnosticCheck("CI", WARNING, says, "export FEDSTEP_CI_JOB=<a name of this job>, for all its steps")
    return DiagnosticCheck("CI", OK, f"{ci.vendor}, {summary}")


def check_start(ci: CiRun, mark: float | None, now: float) -> DiagnosticCheck:
    """Check where the duration of the build will come from."""
    if isinstance(ci.started_at, float):
        return _since("the CI tells", ci.started_at, now)
    if mark is not None:
        return _since("fedstep predict marked", mark, now)
    if ci.vendor == "local":
        return DiagnosticCheck("Job start", OK, "not told: a build by hand is timed by its tests")
    says = f"{ci.started_at.reason}: builds are timed by their tests alone"
    fix = "Run fedstep predict as the first step of the job"
    return DiagnosticCheck(
        "Job start", WARNING, says, fix if ci.run else f"{fix}, with FEDSTEP_CI_RUN set for all steps"
    )


def _since(who: str, started: float, now: float) -> DiagnosticCheck:
    seconds = now - started
    if seconds < 0:
        return DiagnosticCheck(
            "Job start", PROBLEM, f"{who} a start {-seconds:.0f} s in the future", "Set the clock right"
        )
    return DiagnosticCheck("Job start", OK, f"{who} it: {seconds:.0f} s ago")


def check_git(root: str, ci: CiRun, globs: Sequence[str]) -> DiagnosticCheck:
    """Check the change that git reports, without the reports that `globs` match, and the depth of its history."""
    if not repository_root(root):
        return DiagnosticCheck(
            "Git", WARNING, "this folder is not in a git work tree: no change is known", "cd into a checkout"
        )

    def start_hurried(folder: str, arguments: tuple[str, ...], stdin: bytes, seconds: float) -> Callable[[], GitResult]:
        return run_git(folder, arguments, stdin, min(seconds, GIT_SECONDS))

    if ci.vendor == "local":
        change = read_outgoing(root, start_hurried, compile_globs(globs, os.getcwd(), root))
    else:
        change = read_change(root, ci, start_hurried)
    if isinstance(change, Unavailable):
        reason, _, command = change.reason.partition("; run: ")
        return DiagnosticCheck("Git", WARNING, reason, command)
    against = f"against {change.base}" if change.base else "against nothing: no base is known"
    says = f"{count(len(change.files), 'changed file')} {against}"
    if is_shallow(root):
        advice = clone_advice(ci.vendor)
        fix = "git fetch --unshallow" if ci.vendor == "local" else advice[:1].upper() + advice[1:]
        return DiagnosticCheck("Git", WARNING, f"{says}; the clone is shallow, its history is cut off", fix)
    return DiagnosticCheck("Git", OK if change.base else WARNING, "; ".join(filter(None, (says, change.notice))))


def check_reports(globs: Sequence[str], root: str) -> DiagnosticCheck:
    """Check the reports that --junit matches and their contents."""
    if not globs:
        fix = "Name them, here and for train: fedstep doctor --junit 'build/**/TEST-*.xml'"
        return DiagnosticCheck("Reports", WARNING, "no --junit is given", fix)
    files = expand(globs, Path.cwd())
    misses = [file.source for file in files if isinstance(file, Dropped)]
    if misses:
        says = f"{', '.join(misses)} matches no file below {Path.cwd()}"
        return DiagnosticCheck("Reports", PROBLEM, says, "Run it after the tests, and check --junit")
    bytes_ = sum(_length(Path.cwd() / file[0]) for file in files)
    if bytes_ > MOST_REPORTS:
        return DiagnosticCheck("Reports", OK, f"{count(len(files), 'file')} of {size(bytes_)} (too much to read here)")
    reports = read_reports(files, root)
    lost = [drop for drop in reports.dropped if not drop.kept]
    says = f"{count(reports.files, 'file')}, {count(len(reports.tests), 'test')}"
    if lost or not reports.tests:
        why = f"; {lost[0].source}: {lost[0].reason}" if lost else "; no test in them"
        return DiagnosticCheck("Reports", PROBLEM, says + why, "Check --junit and what writes the reports")
    return DiagnosticCheck("Reports", OK, says)


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # reading it reports the reason


LEAST_SPACE, LITTLE_SPACE = 50_000_000, 500_000_000  # bytes
OLDEST_SKLEARN = (1, 9)
INSTALL = "pip install 'fedstep[train]'"
PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")
BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def check_packages(in_ci: bool) -> tuple[DiagnosticCheck, ...]:
    """Check the versions of fedstep and its dependencies."""
    versions = f"fedstep {__version__}, Python {sys.version.split()[0]} on {sys.platform}"
    light = ", ".join(f"{name} {installed_version(name) or 'missing'}" for name in ("click", "requests", "safetensors"))
    return (DiagnosticCheck("Versions", OK, f"{versions}; {light}"), _sklearn(in_ci))


def installed_version(name: str, module: str = "") -> str:
    """Return the version of an installed distribution without importing it, or "" where it or its module is missing."""
    from importlib.metadata import PackageNotFoundError, version  # 20 ms that `fedstep status` does not need

    try:
        return version(name) if find_spec(module or name) else ""
    except (PackageNotFoundError, ImportError, ValueError):
        return ""


def _sklearn(in_ci: bool) -> DiagnosticCheck:
    version = installed_version("scikit-learn", "sklearn")
    others = ", ".join(f"{name} {installed_version(name) or 'missing'}" for name in ("numpy", "scipy"))
    if not version:
        missing = "scikit-learn is not installed: builds are kept and learned later"
        return DiagnosticCheck(
            "Learning", PROBLEM if in_ci else WARNING, missing, f"{INSTALL} (predict and triage need nothing)"
        )
    digits = (piece for piece in version.split(".")[:2])
    if tuple(int(piece) if piece.isdecimal() else 0 for piece in digits) < OLDEST_SKLEARN:
        return DiagnosticCheck("Learning", PROBLEM, f"scikit-learn {version} is older than 1.9", INSTALL)
    return DiagnosticCheck("Learning", PROBLEM if "missing" in others else OK, f"scikit-learn {version}, {others}")


def check_disk(folder: str) -> DiagnosticCheck:
    """Check the free space where the history is stored."""
    while not os.path.isdir(folder) and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)
    try:
        from shutil import disk_usage

        free = disk_usage(folder).free
    except OSError as error:
        return DiagnosticCheck("Disk", WARNING, f"the space of {folder} is unknown: {error.strerror}")
    state = PROBLEM if free < LEAST_SPACE else WARNING if free < LITTLE_SPACE else OK
    return DiagnosticCheck("Disk", state, f"{free / 1e9:,.1f} GB free at {folder}", "Free space" if state != OK else "")


def check_proxies(env: Mapping[str, str], url: str) -> DiagnosticCheck:
    """Check the variables that configure proxies and certificates."""
    proxies = {name: env.get(name) or env.get(name.lower(), "") for name in PROXIES}
    bundles = {name: env[name] for name in BUNDLES if env.get(name)}
    missing = [name for name, path in bundles.items() if not os.path.exists(path)]
    settings = [
        f"{name}={value if name == 'NO_PROXY' else redact_url(value)}" for name, value in proxies.items() if value
    ]
    says = ", ".join([*settings, *(f"{name}={path}" for name, path in bundles.items())]) or "no proxy is set"
    if missing:
        return DiagnosticCheck(
            "Network", PROBLEM, f"{says}; the file is not there", f"Correct {missing[0]}, or unset it"
        )
    host = _host(url)
    if host in ("localhost", "127.0.0.1", "::1") and _has_proxy(proxies) and host not in proxies["NO_PROXY"]:
        return DiagnosticCheck(
            "Network", WARNING, f"{says}: a proxy for {host}, which it cannot reach", f"export NO_PROXY={host}"
        )
    return DiagnosticCheck("Network", OK, says)


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _has_proxy(proxies: Mapping[str, str]) -> bool:
    return bool(proxies["HTTP_PROXY"] or proxies["HTTPS_PROXY"] or proxies["ALL_PROXY"])


MARK = "FEDSTEP_"
MOST_NAMED = 8
NO_AGGREGATOR = "no aggregator is configured"
FILES = ("DOTENV", "SUMMARY", "FINDINGS", "COMMENT", "COMMENT_TOKEN", "CODE_QUALITY")  # where results go
TOKENS = ("ID_TOKEN", "JENKINS_TOKEN", "TOKEN_FOR", "HELPER_TOKEN_FOR")
COMPONENT = (
    "WITH_COMMAND",
    "WITH_JUNIT",
    "WITH_PACKAGE",
    "WITH_PYTHON",
    "WITH_SECONDS",
    "WITH_TRAIN_PACKAGE",
)  # GitLab's
STEP = ("STEP_STARTED_AT",)  # set by the steps of GitHub, GitLab and Jenkins


def read_besides_options() -> frozenset[str]:
    """Return the variables that set no option: about the run, files, tokens, and outputs of an earlier job."""
    names_read = {
        name for names in FEDSTEP_VARIABLES if isinstance(names, tuple) for name in names if isinstance(name, str)
    }
    outputs = (key.upper().replace("-", "_") for key in KEYS)
    return frozenset(names_read | {f"{MARK}{name}" for name in (*FILES, *TOKENS, *COMPONENT, *STEP, *outputs)})


def check_variables(env: Mapping[str, str], options: Collection[str]) -> DiagnosticCheck:
    """Which of our variables are set, no value of them; those that nothing reads, with the name that may be meant."""
    known = read_besides_options().union(options)
    variables = sorted(name for name in env if name.startswith(MARK))
    unknown = [name for name in variables if name not in known]
    if unknown:
        says = f"nothing reads {', '.join(_guess(name, known) for name in unknown[:MOST_NAMED])}"
        return DiagnosticCheck("Variables", WARNING, says, "Correct the name, or unset it")
    listed = ", ".join(variables[:MOST_NAMED]) + (
        f" and {len(variables) - MOST_NAMED} more" if variables[MOST_NAMED:] else ""
    )
    says = f"{count(len(variables), 'variable')} set: {listed}" if variables else "no FEDSTEP_* variables are set"
    return DiagnosticCheck("Variables", OK, says)


def _guess(name: str, known: Collection[str]) -> str:
    from difflib import get_close_matches

    alike = get_close_matches(name.removeprefix(MARK), [each.removeprefix(MARK) for each in known], 1, 0.7)
    return f"{name} ({MARK}{alike[0]}?)" if alike else name


def diagnose(
    context: RunContext,
    globs: Sequence[str],
    aggregator: AggregatorLink | Unavailable,
    secret: str,
    mark: float | None,
    env: Mapping[str, str],
    options: Collection[str],
) -> Diagnosis:
    """Run all checks. The history is read and, except for a temporary file, not written.

    `aggregator` is asked twice at most and its helper once, within its patience; `mark` is when `fedstep predict` said
    that the job began; `options` are the variables that give one.
    """
    from concurrent.futures import ThreadPoolExecutor

    url = "" if isinstance(aggregator, Unavailable) else aggregator.url
    with ThreadPoolExecutor(1) as waiting:  # for the network, while the other checks run
        exchange = waiting.submit(_exchange, aggregator, secret, context.now)
        here = (
            *check_packages(in_ci(context.ci)),
            check_variables(env, options),
            check_ci(context.ci),
            check_start(context.ci, mark, context.now),
            check_git(context.root, context.ci, globs),
            check_reports(globs, context.root),
            *_history(context, url),
            check_disk(os.path.abspath(context.store.folder)),
            check_proxies(env, url),
        )
    return Diagnosis((*here, *exchange.result()))


def _history(context: RunContext, url: str) -> tuple[DiagnosticCheck, ...]:
    folder = check_folder(context.store)
    try:
        remembered, kept = _load_history(context.store, folder)
        builds = check_builds(remembered, in_ci(context.ci))
        return (folder, builds, check_model(kept, context.now, url), check_outbox(context.store, url))
    except HistoryError as error:
        return (
            folder,
            *(() if folder.state == PROBLEM else (DiagnosticCheck("Builds", PROBLEM, error.args[0], error.remedy),)),
        )


def _load_history(store: ProjectStore, folder: DiagnosticCheck) -> tuple[LoadedSummary, CachedModel]:
    """Load the summary and the model of the history, or empty ones where it does not exist yet."""
    if not os.path.lexists(store.folder) and folder.state != PROBLEM:
        return LoadedSummary(Summary()), load_model(store)
    return load_summary(store), load_model(store)


def _exchange(aggregator: AggregatorLink | Unavailable, secret: str, now: float) -> tuple[DiagnosticCheck, ...]:
    from fedstep.diagnostics.aggregator import check_aggregator, check_token, seen_token

    token = seen_token(secret)
    if isinstance(aggregator, Unavailable):
        if aggregator.reason != NO_AGGREGATOR:
            return (DiagnosticCheck("Aggregator", WARNING, aggregator.reason),)
        return (DiagnosticCheck("Aggregator", OK, "none is configured: this project's own history is used"),)
    withheld = [
        DiagnosticCheck("Token", WARNING, f"it is not sent: {notice.reason}", notice.remedy)
        for notice in aggregator.notices
        if notice.url == aggregator.url
    ]
    return (*(withheld or [check_token(token, secret, now)]), *check_aggregator(aggregator, token))


OLD_MODEL = 30 * 86_400  # seconds


def check_folder(store: ProjectStore) -> DiagnosticCheck:
    """Check whether the folder exists, is writable and has a usable key."""
    if not os.path.lexists(store.folder):
        above = Path(store.folder).parent
        if not os.access(above, os.W_OK):
            return DiagnosticCheck(
                "History", PROBLEM, f"{store.folder} cannot be made", "Point --history at another folder"
            )
        return DiagnosticCheck(
            "History", WARNING, f"{store.folder} is not there yet", "fedstep train after your tests makes it"
        )
    try:
        if store.read("key"):
            store.key()
        files = list_folder(store.folder)
        store.write(".doctor", b"")
        remove(store.path(".doctor"))
    except HistoryError as error:
        return DiagnosticCheck("History", PROBLEM, str(error.args[0]), error.remedy)
    taken = sum(path.stat().st_size for path in Path(store.folder).rglob("*") if path.is_file())
    return DiagnosticCheck(
        "History", OK, f"{store.folder}: {size(taken)} in {count(len(files), 'entry', 'entries')}, writable"
    )


def check_builds(remembered: LoadedSummary, in_ci: bool) -> DiagnosticCheck:
    """Check how much of the project's past is known."""
    summary = remembered.summary
    says = f"{count(summary.count, 'build')} and {count(count_tests(summary.tests), 'test')} known"
    if remembered.warnings:
        more = f" ({len(remembered.warnings) - 1} more)" if len(remembered.warnings) > 1 else ""
        return DiagnosticCheck(
            "Builds", WARNING, f"{says}; {remembered.warnings[0]}{more}", "Delete the files that it names"
        )
    if summary.count:
        return DiagnosticCheck("Builds", OK, says)
    kept = "Keep the history folder from build to build: a cache, or the workspace"
    learn = "fedstep train --junit GLOB after each build, or fedstep backfill FOLDER"
    return DiagnosticCheck(
        "Builds", WARNING, f"{says}; times are predicted from the second build on", kept if in_ci else learn
    )


def check_model(kept: CachedModel, now: float, url: str) -> DiagnosticCheck:
    """Which model answers, and whether it is of this schema."""
    own_schema = f"feature schema {schema().digest}"
    if kept.warning:
        return DiagnosticCheck(
            "Model", PROBLEM, f"{kept.warning}; {own_schema}", f"fedstep pull --aggregator {url or 'URL'}"
        )
    if not kept.url:
        return DiagnosticCheck("Model", OK, f"the starter model, shipped with fedstep; {own_schema}")
    age = max(0.0, now - kept.fetched_at)
    says = f"production {kept.model.production_version} from {kept.url}, pulled {span(age)} ago; {own_schema}"
    old = age > OLD_MODEL
    return DiagnosticCheck(
        "Model", WARNING if old else OK, says, f"fedstep pull --aggregator {kept.url}" if old else ""
    )


def check_outbox(store: ProjectStore, url: str) -> DiagnosticCheck:
    """Check which updates wait to be sent."""
    names = list_folder(store.outbox)
    waiting = sum(name.endswith(SUFFIX) for name in names)
    damaged = sum(name.endswith(DAMAGED) for name in names)
    says = f"{count(waiting, 'update')} waiting" + (f", {damaged:,} damaged and set aside" if damaged else "")
    fix = f"fedstep push --aggregator {url or 'URL'}" if waiting else f"rm {store.outbox}/*{DAMAGED}" if damaged else ""
    return DiagnosticCheck("Outbox", WARNING if waiting or damaged else OK, says, fix)


def standing(store: ProjectStore, now: float) -> Diagnosis:
    """History, model, outbox, privacy; nobody is asked."""
    folder = check_folder(store)
    if folder.state == PROBLEM or not os.path.lexists(store.folder):
        return Diagnosis((folder,))
    try:
        kept = load_model(store)
        builds = DiagnosticCheck("Builds", OK, f"{count(len(store.log.files()), 'build')} recorded")
        tally = load_summary(store).summary.selections
        selections = [DiagnosticCheck("Selection", OK, text) for text in describe_selections(tally)]
        url, promise = load_terms(store)
        privacy = check_privacy(url, promise, load_contributions(store, url))
        return Diagnosis((folder, builds, *selections, check_model(kept, now, url), check_outbox(store, url), privacy))
    except HistoryError as error:
        return Diagnosis((folder, DiagnosticCheck("Builds", PROBLEM, str(error.args[0]), error.remedy)))


def check_privacy(url: str, promise: PrivacyGuarantee, turns: ContributionLog) -> DiagnosticCheck:
    """Check the privacy that the aggregator promises and how much of the budget is left."""
    if not url:
        return DiagnosticCheck("Privacy", OK, "nothing is sent: no aggregator was ever asked")
    if not promise.releases:
        return DiagnosticCheck("Privacy", OK, "no differential privacy: an update is sent whenever a batch is full")
    says = (
        f"differential privacy, epsilon {promise.epsilon:g} at delta {promise.delta:g}: "
        f"{turns.made} of {count(promise.releases, 'contribution')} made, one in {promise.days:g} days"
    )
    if turns.over or turns.made >= promise.releases:
        return DiagnosticCheck(
            "Privacy", OK, f"{says}; the budget is spent: this project predicts and contributes no longer"
        )
    last = f"; the last on {datetime.fromtimestamp(turns.last, UTC):%Y-%m-%d}" if turns.made else ""
    return DiagnosticCheck("Privacy", OK, f"{says}{last}")
