"""Count the modules that a reader opens to follow each of five flows: `python -m tests.flows [-v]`.

Each flow runs once to warm imports and caches, then once under a profiler. A module counts when one of its functions
runs; code that runs at import time does not. The client's flows run through `fedstep.Project`, and again through the
command line, which adds options and output; the server's run through the ASGI application, and aggregation is what its
own thread runs.
"""

import os
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import partial
from io import StringIO
from itertools import count
from pathlib import Path
from types import CodeType, FrameType

from fedstep import Project
from fedstep.federation.messages import TrialScore, Update, pack_update, shape
from fedstep.schema.schema import schema
from fedstep.server.mode import BufferPolicy
from fedstep.server.settings import Settings
from tests.helpers.aggregator import InProcess
from tests.helpers.cli import forty_tests, new_checkout
from tests.house import describe_miss

PACKAGE = Path(__file__).parents[1] / "fedstep"
AIMS = {"predict": 17, "triage": 29, "train": 40, "POST /v1/updates": 15, "aggregate and gate": 15}  # decision 0113
FIRST_PLAN = {"predict": 15, "triage": 15, "train": 20, "POST /v1/updates": 15, "aggregate and gate": 15}
COMMANDS = ("predict", "triage", "train")
NEW_LOCALS = 0x2  # flag of a code object that is a function, not a module or class body
AGGREGATION_THREAD = "fedstep-aggregation"


class ModuleRecorder:
    """Collects, while it is on, the modules of fedstep whose functions run, by name of the thread."""

    def __init__(self) -> None:
        self.modules: dict[str, set[str]] = {}
        self.recording = False
        self._paths: dict[CodeType, str] = {}
        threading.setprofile(self._profile)  # threads that start from now on

    @contextmanager
    def record(self) -> Iterator[None]:
        """Record what runs inside the block, in every thread that started after this object was made."""
        self.modules, self.recording = {}, True
        sys.setprofile(self._profile)
        try:
            yield
        finally:
            sys.setprofile(None)
            self.recording = False

    def close(self) -> None:
        """Let new threads run without a profiler again."""
        threading.setprofile(None)

    def _profile(self, frame: FrameType, event: str, _argument: object) -> None:
        if not self.recording or event != "call":
            return
        code = frame.f_code
        if code not in self._paths:
            path = Path(code.co_filename)
            ours = code.co_flags & NEW_LOCALS and path.is_relative_to(PACKAGE)
            self._paths[code] = path.relative_to(PACKAGE).as_posix() if ours else ""
        if path_below := self._paths[code]:
            self.modules.setdefault(threading.current_thread().name, set()).add(path_below)


def count_flows() -> dict[str, tuple[str, ...]]:
    """Return, for each flow, the modules (paths below fedstep/, sorted) whose functions run in it."""
    recorder = ModuleRecorder()
    try:
        with tempfile.TemporaryDirectory(prefix="fedstep-flows-") as folder:
            return {**_client_flows(recorder, Path(folder)), **_server_flows(recorder, Path(folder))}
    finally:
        recorder.close()


def _client_flows(recorder: ModuleRecorder, folder: Path) -> dict[str, tuple[str, ...]]:
    """Run predict, triage and train in a project with six builds, without an aggregator."""
    checkout = new_checkout(folder / "project")
    checkout.report(forty_tests(3))
    runs = count()

    def recorded(run: Callable[[], object]) -> tuple[str, ...]:
        for _ in range(2):
            os.environ["FEDSTEP_CI_RUN"] = f"run-{next(runs)}"
            with recorder.record():
                run()
        return _all_modules(recorder)

    with _environment(checkout.env), chdir(checkout.root):
        for number in range(6):
            os.environ["FEDSTEP_CI_RUN"] = str(number)
            checkout.report(forty_tests(number), "history.xml")
            _run_command("train", "--junit", "history.xml")
        project = Project.discover()
        reports = ("report.xml",)
        return {
            "predict": recorded(lambda: project.predict(reports)),
            "triage": recorded(lambda: project.triage(reports)),
            "train": recorded(lambda: project.train(reports)),
            **{f"fedstep {name}": recorded(partial(_run_command, name, "--junit", "report.xml")) for name in COMMANDS},
        }


def _run_command(*arguments: str) -> None:
    from fedstep.cli.main import main

    with redirect_stdout(StringIO()), redirect_stderr(StringIO()) as errors, suppress(SystemExit):
        main(arguments)
    assert "error" not in errors.getvalue(), errors.getvalue()


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _server_flows(recorder: ModuleRecorder, folder: Path) -> dict[str, tuple[str, ...]]:
    """Accept updates, then aggregate three that evaluate an open trial."""
    policy = BufferPolicy(updates=3, seconds=3600.0)
    aggregator = InProcess(Settings(store=f"sqlite:///{folder / 'store.db'}", buffer=policy), schema())
    try:
        for number in range(3):
            _post(aggregator, number, trial=0)
        _wait_for_version(aggregator, 1)
        _post(aggregator, 3, trial=1)
        with recorder.record():
            _post(aggregator, 4, trial=1)
        accepted = _all_modules(recorder)
        with recorder.record():
            _post(aggregator, 5, trial=1)
            _wait_for_version(aggregator, 2)
        aggregated = {
            module for name, modules in recorder.modules.items() if AGGREGATION_THREAD in name for module in modules
        }
    finally:
        aggregator.close()
    return {"POST /v1/updates": accepted, "aggregate and gate": tuple(sorted(aggregated))}


def _post(aggregator: InProcess, number: int, trial: int) -> None:
    tasks = schema().tasks.values()
    deltas = {task.name: array("f", [0.001 * (number + 1)] * task.size()) for task in tasks}
    scores = {task.name: TrialScore(trial, 0.1) for task in tasks} if trial else {}
    counts = {task.name: 64 for task in tasks}
    update = Update(shape(schema()).digest, trial, f"{number:032x}", f"{number:032x}", counts, deltas, scores)
    headers = {"Content-Type": "application/octet-stream", "Idempotency-Key": update.id}
    response = aggregator.send("POST", "/v1/updates", headers, pack_update(update), 10.0)
    assert response.status in (200, 202), response.body


def _wait_for_version(aggregator: InProcess, version: int) -> None:
    deadline = time.monotonic() + 20.0
    while time.monotonic() < deadline:
        etag = aggregator.send("GET", "/v1/model", {}, b"", 10.0).headers.get("etag", "")
        if etag.startswith(f'"{version}-'):
            return
        time.sleep(0.05)
    raise TimeoutError(f"version {version} was not made within 20 s")


def _all_modules(recorder: ModuleRecorder) -> tuple[str, ...]:
    return tuple(sorted({module for modules in recorder.modules.values() for module in modules}))


def _describe_aim(name: str, count: int) -> str:
    """Return the aim of a flow, and the first plan's where that was another."""
    if AIMS[name] == FIRST_PLAN[name]:
        return f"aim: at most {AIMS[name]}"
    return (
        f"aim: at most {AIMS[name]}; first plan: at most {FIRST_PLAN[name]}, {describe_miss(count, FIRST_PLAN[name])}"
    )


def main(show: Callable[[str], None] = print, *, verbose: bool = False) -> int:
    """Count the modules and print the counts. Return 1 when one is above its aim."""
    return print_counts(count_flows(), show, verbose=verbose)


def print_counts(
    flows: Mapping[str, tuple[str, ...]], show: Callable[[str], None] = print, *, verbose: bool = False
) -> int:
    """Print the counts beside their aims. Return 1 when one is above its aim."""
    for name, modules in flows.items():
        aim = _describe_aim(name, len(modules)) if name in AIMS else "with options and output"
        show(f"{name}: {len(modules)} modules ({aim})")
        if verbose:
            show("\n".join(f"  {module}" for module in modules))
    return int(any(len(flows[name]) > aim for name, aim in AIMS.items()))


if __name__ == "__main__":
    sys.exit(main(verbose="-v" in sys.argv))
