"""`fedstep status`, and a checkout whose aggregator promises differential privacy."""

import json

from tests.helpers.cli import Checkout, aggregator, forty_tests


def privacy(place: Checkout) -> str:
    ran = place.run("status", "--json")
    assert ran.code == 0
    (says,) = (check["says"] for check in json.loads(ran.out)["checks"] if check["name"] == "Privacy")
    return str(says)


class TestHistory:
    def test_checkout_without_history_makes_no_folder(self, fresh):
        """A checkout without a history is told that, and no folder is made."""
        ran = fresh.run("status")
        assert "is not there yet" in ran.out
        assert not fresh.history.exists()

    def test_it_says_what_is_kept_here_and_loads_no_numpy(self, experienced):
        ran = experienced.run("status", python=("-X", "importtime"))
        assert "12 builds recorded" in ran.out
        assert "the starter model" in ran.out
        assert "nothing is sent" in ran.out
        assert "| numpy" not in ran.err
        assert "| requests" not in ran.err


class TestBudget:
    def test_one_batch_goes_out_then_the_budget_is_shown_as_spent(self, tmp_path, experienced):
        with aggregator(tmp_path / "hub", "--privacy-epsilon", "8", "--privacy-releases", "1") as url:
            place = experienced.with_env(FEDSTEP_AGGREGATOR=url)
            first = json.loads(place.run("train", "--junit", place.report(forty_tests(12)), "--format", "json").out)
            assert first["status"] == "ok"
            assert place.outbox() == []
            says = privacy(place)
            assert "epsilon 8 at delta 1e-06: 1 of 1 contribution made" in says
            assert "this project predicts and contributes no longer" in says

    def test_a_pull_is_of_the_part_that_it_names_as_status_is(self, fresh, tmp_path):
        with aggregator(tmp_path / "hub") as url:
            part = fresh.with_env(FEDSTEP_HISTORY="git", FEDSTEP_AGGREGATOR=url, FEDSTEP_PATH="services/api")
            assert part.run("pull").code == 0
            assert part.run("push").code == 0
        (folder,) = (fresh.root / ".git/fedstep/parts").iterdir()
        assert (folder / "model.safetensors").exists()
        assert not (fresh.root / ".git/fedstep/model.safetensors").exists()

    def test_serve_refuses_a_promise_that_cannot_be_kept(self, fresh):
        """`serve` refuses a promise that nothing can keep, or that shares cannot."""
        for options in (
            ["--privacy-epsilon", "5000"],
            ["--privacy-epsilon", "8", "--role", "leader", "--peer", "http://h"],
        ):
            ran = fresh.run("serve", "--port", "0", *options)
            assert ran.code == 2, ran.err
            assert "fedstep: error:" in ran.err
