"""The whole loop with the real command, a real repository and a real aggregator."""

import json
import time

from tests.helpers.cli import aggregator, forty_tests, new_checkout

CASES = forty_tests(7)  # all pass
FAILING = forty_tests(12)  # test_7 fails, as it did in every third build before


class TestLocalLoop:
    def test_three_builds_are_learned_and_a_failure_is_judged(self, fresh):
        """Three builds are learned, then predicted, and a failure is judged."""
        for number, expected in enumerate(("failed", "passed", "passed")):
            report = fresh.report(forty_tests(3 + 2 * number))
            ran = fresh.run("train", "--junit", report, "--format", ("text", "json", "markdown")[number])
            assert ran.code == 0
            assert ran.warnings == []
            assert expected in ran.out
            fresh.commit("shop/cart.py", f"total = {number + 2}\n")
        assert len(fresh.builds()) == 3
        assert (fresh.history / ".gitignore").read_text() == "*\n"
        assert fresh.git("status", "--porcelain", "--untracked-files=all").split() == ["??", "report.xml"]

        text, told, markdown = (fresh.run("predict", "--format", style) for style in ("text", "json", "markdown"))
        assert [ran.code for ran in (text, told, markdown)] == [0, 0, 0]
        found = json.loads(told.out)
        assert found["status"] == "local"
        assert found["builds_known"] == 3
        assert found["tests_known"] == 40
        assert found["duration"]["low"] <= found["duration"]["seconds"] <= found["duration"]["high"]
        assert 0 < found["failure_risk"]["probability"] < 1
        assert found["model"] == {"kind": "starter", "version": 0, "age_seconds": None, "url": ""}
        assert "Build time" in text.out
        assert "starter model" in text.out
        assert markdown.out.startswith("#")

        judged = json.loads(fresh.run("triage", "--junit", fresh.report(FAILING), "--format", "json").out)
        assert [failure["test"] for failure in judged["failures"]] == ["shop.test_cart#test_7"]
        assert 0 < judged["failures"][0]["flaky_probability"] < 1
        assert len(fresh.builds()) == 3, "triage records nothing"

    def test_a_prediction_names_reasons_and_changes_nothing_on_disk(self, experienced):
        def files() -> dict[str, int]:
            return {str(path): path.stat().st_mtime_ns for path in experienced.history.rglob("*")}

        before = files()
        (experienced.root / "shop/new.py").write_text("one\ntwo\n")
        found = json.loads(experienced.run("predict", "--format", "json").out)
        assert files() == before
        assert found["base"].startswith("1 file changed against")
        assert 60 <= found["duration"]["seconds"] <= 80
        assert found["failure_risk"]["reasons"]
        assert found["flaky"][0]["test"] == "shop.test_cart#test_7", "it failed in every third build"
        assert found["flaky"][0]["runs"] == 12
        assert found["flaky"][0]["reasons"]
        assert all(0.05 <= risk["probability"] <= 1 for risk in found["flaky"])

    def test_a_whole_build_that_fails_is_called_an_incident(self, experienced):
        report = experienced.report([(name, "failed", seconds) for name, _, seconds in CASES])
        ran = experienced.run("triage", "--junit", report)
        assert ran.code == 0
        assert "an incident" in ran.out
        found = json.loads(experienced.run("triage", "--junit", report, "--format", "json").out)
        assert found["incident"] is True
        assert found["incident_reason"] == "40 of 40 tests failed at once"


def new_copy(place, history):
    return new_checkout(place.root.parent / "copy", history)


def wait_for_version(place, url, version):
    end = time.monotonic() + 15
    while (ran := place.run("pull", "--aggregator", url)).out != f"production {version}, candidate {version}\n":
        assert ran.code == 0, ran.err
        assert time.monotonic() < end, ran.out
        time.sleep(0.05)


class TestAggregator:
    def test_full_batch_makes_a_version_that_others_are_served(self, tmp_path, experienced, learned_history):
        """A full batch is sent, makes a new version and serves another project."""
        other = new_checkout(tmp_path / "other", learned_history)
        (other.history / "key").write_text("ab" * 32)
        with aggregator(tmp_path, "--buffer-size", "1", "--max-wait", "0.1", "--no-gate") as url:
            first = experienced.run(
                "train", "--junit", experienced.report(CASES), "--aggregator", url, "--format", "json"
            )
            assert first.code == 0
            assert first.warnings == []
            told = json.loads(first.out)
            assert told["status"] == "ok"
            assert told["exchange"]["unsent"] == 0
            (sent,) = told["exchange"]["sent"]
            assert sent["rows"]["build-failure"] == 8
            assert sent["bytes"] < 16_384
            assert experienced.outbox() == []

            assert json.loads(other.run("predict", "--format", "json").out)["model"]["kind"] == "starter"
            wait_for_version(other, url, 1)

        before, after = (
            json.loads(place.run("predict", "--format", "json").out)
            for place in (new_copy(other, learned_history), other)
        )
        assert after["status"] == "ok"
        assert after["model"]["kind"] == "production"
        assert after["model"]["version"] == 1
        assert after["model"]["url"] == url
        assert 0 <= after["model"]["age_seconds"] < 60
        assert after["failure_risk"]["probability"] != before["failure_risk"]["probability"], (
            "it profits from a stranger"
        )
        assert "production model 1, pulled " in other.run("predict").out

    def test_serve_asks_for_a_token_and_push_and_train_give_it(self, tmp_path, connected):
        with aggregator(tmp_path, "--tokens", f"{'1' * 20},{'2' * 20}") as url:
            wrong = connected.with_env(FEDSTEP_TOKEN="3" * 20)
            ran = wrong.run("train", "--junit", connected.report(CASES), "--aggregator", url)
            assert ran.code == 0
            assert len(ran.warnings) == 1
            assert "401" in ran.warnings[0]
            assert "FEDSTEP_TOKEN" in ran.warnings[0]
            assert len(connected.outbox()) == 1

            assert connected.run("push", "--aggregator", url, "--strict").code == 5
            right = connected.with_env(FEDSTEP_TOKEN="2" * 20)
            assert right.run("push", "--aggregator", url, "--strict").out == "1 sent, 0 refused, 0 waiting\n"
            assert right.run("push", "--aggregator", url, "--strict").out == "0 sent, 0 refused, 0 waiting\n"


class TestHistory:
    def test_the_history_keeps_as_many_builds_as_asked(self, experienced, without_sklearn):
        place = without_sklearn(experienced)
        assert place.run("train", "--junit", place.report(CASES), "--keep", "5").code == 0
        assert len(place.builds()) == 5

    def test_backfill_counts_every_build_once(self, experienced, recorded):
        ran = experienced.run("backfill", str(recorded))
        assert ran.code == 0
        assert ran.out.startswith("0 builds recorded, 12 known already")
