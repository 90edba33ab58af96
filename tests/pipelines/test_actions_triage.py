"""fedstep/triage: failures judged with another job's history, with an aggregator's model, on reports of forks."""

import json
import os
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

HERE = Path(__file__).parent
JUDGE = HERE / "workflows" / "judge.yml"
FORKS = HERE / "examples" / "github-forks.yml"
QUARANTINED = ("tests.test_cart#test_sleeps", "--owner", "ada", "--reason", "#123")
DEAD = "http://127.0.0.1:9"
COMMIT = "b" * 40
FORK_RUN = {
    "action": "completed",
    "workflow_run": {
        "id": 77,
        "event": "pull_request",
        "head_branch": "a patch/1",
        "head_sha": COMMIT,
        "head_repository": {"full_name": "stranger/shop", "owner": {"login": "stranger"}},
        "pull_requests": [],  # GitHub's own: empty for forks
    },
    "repository": {"full_name": "acme/shop", "default_branch": "main"},
}
OWN_PULL_REQUEST = {
    "number": 7,
    "pull_request": {
        "number": 7,
        "user": {"login": "colleague"},
        "head": {"ref": "patch", "sha": COMMIT, "repo": {"full_name": "acme/shop"}},
        "base": {"ref": "main", "sha": "a" * 40, "repo": {"full_name": "acme/shop"}},
    },
    "repository": {"full_name": "acme/shop", "default_branch": "main"},
}


class Api:
    """A stand-in of GitHub's REST API on loopback: comments of one pull request; `status` answers instead if set."""

    def __init__(self):
        self.comments, self.asked, self.status = [], [], 0
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def said(self, body, kind="Bot"):
        self.comments.append({"id": 100 + len(self.comments), "body": body, "user": {"type": kind}})

    def answer(self, method, path, query, content):
        if self.status:
            return self.status, {"message": "Resource not accessible by integration"}
        if (method, path) == ("GET", "/repos/acme/shop/pulls"):
            others = {"number": 6, "head": {"sha": "c" * 40}}
            ours = {"number": 7, "head": {"sha": COMMIT}}
            return 200, [others, ours] if query["head"] == ["stranger:a patch/1"] else []
        if (method, path) == ("GET", "/repos/acme/shop/issues/7/comments"):
            start = (int(query["page"][0]) - 1) * int(query["per_page"][0])
            return 200, self.comments[start : start + int(query["per_page"][0])]
        if (method, path) == ("POST", "/repos/acme/shop/issues/7/comments"):
            self.said(content["body"])
            return 201, self.comments[-1]
        if method == "PATCH":
            (one,) = [one for one in self.comments if path == f"/repos/acme/shop/issues/comments/{one['id']}"]
            one["body"] = content["body"]
            return 200, one
        return 404, {"message": "Not Found"}

    def handler(self):
        api = self

        class Handler(BaseHTTPRequestHandler):
            def reply(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                parts = urlsplit(self.path)
                api.asked.append((self.command, parts.path, self.headers.get("Authorization", "")))
                content = json.loads(body) if body else None
                status, value = api.answer(self.command, parts.path, parse_qs(parts.query), content)
                raw = value if isinstance(value, bytes) else json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            do_GET = do_POST = do_PATCH = reply

            def log_message(self, *_):
                pass

        return Handler


@pytest.fixture
def api():
    made = Api()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def comment(api, repository, tmp_path, fedstep):
    """A function that runs `fedstep triage` in a job of GitHub's that comments."""
    from_outside = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}

    def run(event=OWN_PULL_REQUEST, report="report.xml", **changes):
        (tmp_path / "event.json").write_text(json.dumps(event))
        names = {
            "GITHUB_ACTIONS": "true",
            "GITHUB_API_URL": api.url,
            "GITHUB_SERVER_URL": "https://github.com",
            "GITHUB_REPOSITORY": "acme/shop",
            "GITHUB_RUN_ID": "5",
            "GITHUB_WORKFLOW": "tests",
            "GITHUB_JOB": "test",
            "GITHUB_EVENT_NAME": "pull_request",
            "GITHUB_EVENT_PATH": str(tmp_path / "event.json"),
            "FEDSTEP_COMMENT": "true",
            "FEDSTEP_COMMENT_TOKEN": "a-token",
        }
        command = [fedstep, "triage", "--junit", report]
        env = from_outside | names | changes
        done = subprocess.run(command, cwd=repository, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr

    return run


def kept_event(tmp_path, event):
    path = tmp_path / "event.json"
    path.write_text(json.dumps(event))
    return str(path)


class TestGate:
    def test_fail_on_fails_the_job_unless_failures_are_forgiven(self, act, fedstep, repository):
        """One failure of the report, first as it is and then quarantined."""
        run = act(JUDGE, COMMAND=fedstep, REPORTS="report.xml", FAIL_ON="regressions")
        assert run.code != 0
        assert run.outputs("triage")["verdict"] == "failed"
        assert run.obeyed("error") == ["Not every failure is forgiven; the summary has them."]
        subprocess.run([fedstep, "quarantine", "add", *QUARANTINED], cwd=repository, check=True, timeout=60)
        run = act(JUDGE, COMMAND=fedstep, REPORTS="report.xml", FAIL_ON="regressions")
        assert run.code == 0, run.log
        assert run.outputs("triage")["verdict"] == "passed"
        assert run.outputs("triage")["failures-forgiven"] == "1"

    def test_fail_on_without_a_verdict_fails_the_job(self, act, fedstep):
        """A gate that could not decide is closed: the tests may have run so that their failures end nothing."""
        for given in ({"JUDGE": "/no/such/fedstep"}, {"FAIL_ON": "regression"}):
            told = {"FAIL_ON": "regressions", "COMMAND": fedstep, "REPORTS": "report.xml"} | given
            run = act(JUDGE, **told)
            assert run.code != 0, run.log
            assert "did not finish" in "".join(run.obeyed("error"))
            assert run.outputs("triage")["status"] == "degraded"


class TestJudgement:
    def test_failures_are_judged_with_the_history_of_their_job(self, act, fedstep, tmp_path):
        """Failures are judged with the history of the job that ran them."""
        run = act(JUDGE, COMMAND=fedstep, REPORTS="report.xml")
        assert run.code == 0, run.log
        told = run.outputs("triage")
        assert (told["status"], told["eta-seconds"]) == ("local", "")
        assert int(told["failures-flaky"]) + int(told["failures-real"]) <= 1
        assert "no build of this project is known yet" not in run.log.partition("judge/judge")[2], "it is in the cache"
        assert "test_sleeps" in run.summary()
        (saved,) = (tmp_path / "cache").glob("*/*/*.tar")
        assert "-test-1-1" in saved.name, "triage keeps nothing"

    @pytest.mark.full
    def test_model_of_the_aggregator_judges(self, act, fedstep, aggregator):
        """The model of the aggregator judges, and a dead one is one warning."""
        good = act(JUDGE, COMMAND=fedstep, REPORTS="report.xml", AGGREGATOR=aggregator)
        assert good.code == 0, good.log
        assert good.outputs("triage")["status"] == "ok", good.log
        given = {"COMMAND": fedstep, "REPORTS": "report.xml", "AGGREGATOR": DEAD, "FEDSTEP_TIMEOUT": "1"}
        bad = act(JUDGE, **given)
        assert bad.code == 0, bad.log
        assert bad.outputs("triage")["status"] == "degraded"
        assert "test_sleeps" in bad.summary(), "judged all the same"
        (warning,) = [text for text in bad.obeyed("warning") if "not pulled" in text]
        assert "127.0.0.1:9 cannot be reached" in warning
        assert act(JUDGE, **given, STRICT="true").code == 1

    def test_recipe_for_forks_runs_nothing_of_theirs(self, act, api, fedstep, repository, tmp_path):
        """The recipe for forks judges their reports and comments without running anything of theirs."""
        artifact = tmp_path / "artifacts" / "77" / "reports"
        artifact.mkdir(parents=True)
        shutil.copy(repository / "report.xml", artifact / "report.xml")
        shutil.copy(repository / "re port $(touch pwned).xml", artifact / "$(touch pwned).xml")
        recipe = tmp_path / "github-forks.yml"
        recipe.write_text(
            FORKS.read_text().replace('comment: "true"', f'comment: "true"\n          command: {fedstep}')
        )
        given = {"GITHUB_API_URL": api.url, "ARTIFACTS": str(tmp_path / "artifacts"), "GITHUB_REPOSITORY": "acme/shop"}
        flags = ("-e", kept_event(tmp_path, FORK_RUN), "-s", "GITHUB_TOKEN=the-token-of-the-job")
        run = act(recipe, *flags, event="workflow_run", **given)
        assert run.code == 0, run.log
        (one,) = api.comments
        assert "test_sleeps" in one["body"]
        assert "pwned" in one["body"], "a hostile name is shown"
        assert not list(tmp_path.glob("**/pwned"))
        assert ("POST", "/repos/acme/shop/issues/7/comments", "Bearer the-token-of-the-job") in api.asked
        assert act(recipe, *flags, event="workflow_run", **given).code == 0
        assert len(api.comments) == 1, "updated, not repeated"


class TestComment:
    def test_a_comment_is_written_once_and_then_updated(self, comment, api, repository):
        assert "comment" not in comment()
        (first,) = api.comments
        assert "1 unsure" in first["body"] or "flaky" in first["body"]
        assert "https://github.com/acme/shop/actions/runs/5" in first["body"]
        passed = "<testsuite><testcase classname='a' name='b' time='1'/></testsuite>"
        (repository / "passed.xml").write_text(passed)
        comment(report="passed.xml")
        (second,) = api.comments
        assert second["id"] == first["id"]
        assert "no test failed" in second["body"]
        assert "test_sleeps" not in second["body"]

    def test_where_nothing_failed_nobody_is_told(self, comment, api, repository):
        (repository / "passed.xml").write_text("<testsuite><testcase classname='a' name='b' time='1'/></testsuite>")
        comment(report="passed.xml")
        assert api.comments == []

    def test_each_job_has_a_comment_also_on_a_later_page(self, comment, api):
        """Another job has a comment of its own, and one on a later page is found."""
        for number in range(150):
            api.said(f"talk {number}", "User")
        comment()
        comment(GITHUB_JOB="other")
        assert len(api.comments) == 152
        comment()
        assert len(api.comments) == 152

    def test_a_mark_that_a_person_wrote_is_not_ours(self, comment, api):
        comment()
        forged = api.comments.pop()
        api.said(forged["body"], "User")
        comment()
        assert [one["user"]["type"] for one in api.comments] == ["User", "Bot"]

    def test_a_push_has_no_pull_request_and_asks_nothing(self, comment, api):
        comment(event={"repository": {"full_name": "acme/shop"}}, GITHUB_EVENT_NAME="push")
        assert api.asked == []


class TestApiErrors:
    @pytest.mark.parametrize("status", [401, 403, 404])
    def test_token_that_may_not_comment_names_the_permission(self, comment, api, status):
        """A token that may not comment is one sentence that names the permission."""
        api.status = status
        (line,) = [line for line in comment().splitlines() if "comment" in line]
        assert "pull-requests: write" in line
        assert f"answered {status}" in line

    @pytest.mark.parametrize("status", [500, 302, 422])
    def test_an_api_in_trouble_is_one_sentence(self, comment, api, status):
        api.status = status
        (line,) = [line for line in comment().splitlines() if "comment" in line]
        assert f"answered {status}" in line

    @pytest.mark.usefixtures("api")
    def test_invalid_or_absent_api_stops_nothing(self, comment, monkeypatch):
        """An API that talks nonsense or is not there stops nothing."""
        monkeypatch.setattr(Api, "answer", lambda *_: (200, b"\xff[{]"))
        comment()
        monkeypatch.setattr(Api, "answer", lambda *_: (200, [None, 3, {"body": 4, "user": []}, {"id": "x"}]))
        comment()
        assert "no comment was written" in comment(GITHUB_API_URL=DEAD)
        assert "no comment was written" in comment(GITHUB_API_URL="no url")
