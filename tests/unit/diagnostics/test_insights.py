"""Facts about what the page of a project shows: what flakes cost, what became slower, how good predictions were."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fedstep import Project
from fedstep.diagnostics.insights import load_history, project_insights
from fedstep.history.project_store import ProjectStore
from fedstep.history.summary import encode_summary
from fedstep.history.timeline import encode_timeline
from fedstep.ingest.code_host import parse_remote
from fedstep.ingest.mutes import ACKS_FILE, Acknowledgement, add_acknowledgement, read_acknowledgements
from fedstep.model.training import load_state
from fedstep.report.badge import badge_json, badge_svg, make_badge
from fedstep.report.charts import WIDE, draw_build_times
from fedstep.report.digest import digest_markdown, digest_slack, digest_text, make_digest
from fedstep.report.project_page import (
    Failures,
    Insights,
    fix_first,
    most_expensive_tests,
    project_html,
    summarize_page,
)
from fedstep.types import Outcome, TestRun
from tests.benchmarks.project import grow
from tests.helpers.project_history import BROKEN, BUILDS, FLAKY, HOSTILE, SLOW, build_record, write_history

NOW = 1_792_000_000.0
DAY = 86_400.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shop")
    write_history(root)
    return root


def insights_of(folder: Path) -> Insights:
    context = Project.discover(folder, environment={}, clock=lambda: NOW).context()
    return project_insights(context, load_history(context.store))


@pytest.fixture(scope="module")
def insights(folder: Path) -> Insights:
    return insights_of(folder)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The history of a project that was learned from build by build, as `train` does."""
    folder = tmp_path_factory.mktemp("learned") / "history"
    grow(ProjectStore(str(folder)), 150, 60)
    return folder


@pytest.fixture
def grown(tmp_path: Path, learned: Path) -> ProjectStore:
    """A copy of it."""
    return ProjectStore(str(shutil.copytree(learned, tmp_path / "history")))


def read_nothing(done: int, total: int) -> None:
    pytest.fail(f"build {done} of {total} is read again")


class TestLoadHistory:
    @pytest.mark.slow
    def test_what_train_keeps_needs_no_build(self, grown: ProjectStore) -> None:
        assert load_history(grown, read_nothing).summary.count == 60

    def test_lost_caches_are_made_in_one_reading(self, grown: ProjectStore) -> None:
        """Together they say what was lost, also what failures turned out to be; and they are kept."""
        before, told = load_history(grown), list[int]()
        judged = [one.was_flake for build in before.timeline.builds for one in build.failures]
        assert set(judged) >= {True, False}
        grown.write("summary.json", b"{")
        grown.write("timeline.z", b"")
        made = load_history(grown, lambda done, _: told.append(done))
        kept = load_history(grown, read_nothing)
        assert told == list(range(60))
        for found in (made, kept):
            assert encode_timeline(found.timeline) == encode_timeline(before.timeline)
            assert encode_summary(found.summary) == encode_summary(before.summary)

    def test_a_lost_timeline_is_kept_too(self, grown: ProjectStore) -> None:
        grown.write("timeline.z", b"damaged")
        assert load_history(grown).timeline.count == 60
        assert load_history(grown, read_nothing).timeline.count == 60

    def test_kept_caches_do_not_hide_what_is_not_learned(self, grown: ProjectStore) -> None:
        """The learned state of other records does not fit them, and is learned again."""
        grown.write("summary.json", b"")
        grown.log.append(build_record(1))
        assert load_history(grown).summary.count == 61
        assert load_state(grown).summary.count == 0


class TestInsights:
    def test_the_flaky_test_costs_what_its_builds_took(self, insights: Insights) -> None:
        """Each build that failed by flakes alone has to run again; a rerun inside a build costs the test's own time."""
        [flaky] = [one for one in insights.flaky if one.test == FLAKY]
        records = [build_record(number) for number in range(BUILDS)]
        newest = records[-1].finished_at
        recent = [record for record in records if record.finished_at > newest - 28 * DAY]
        again = 0.0
        for record in recent:
            failed = [run.test for run in record.tests if run.outcome == "f"]
            again += record.seconds / len(failed) if FLAKY in failed else 0.0
        weeks = (newest - min(record.started_at for record in recent)) / (7 * DAY)
        assert flaky.minutes_a_week == pytest.approx(again / 60 / weeks, rel=0.02)
        assert flaky.red_builds > 0
        assert flaky.reruns > 0
        assert flaky.since == pytest.approx(records[0].finished_at, abs=0.001)

    def test_tests_that_flake_together_are_one_row(self, tmp_path: Path) -> None:
        """A shared fixture is one cause: the row names the others and has what all of them cost."""
        store = Project.discover(tmp_path, environment={}, clock=lambda: NOW).context().store
        mates = [f"shop.FixtureTest#t{number}" for number in range(4)]
        for number in range(30):
            outcome = Outcome.FLAKED if number in (11, 20) else Outcome.PASSED
            record = build_record(number)
            store.log.append(record._replace(tests=(*record.tests, *(TestRun(test, outcome, 3.0) for test in mates))))
        (row,) = [one for one in insights_of(tmp_path).flaky if one.test in mates]
        assert (row.test, row.also) == (mates[0], tuple(mates[1:]))
        assert row.reruns == 8
        assert row.together == "4 tests of shop.FixtureTest failed together in the same 2 builds: likely one cause"

    def test_what_stands_for_a_hook_or_a_file_is_no_slow_test(self, tmp_path: Path) -> None:
        """Each is a case only where it failed, and the time is that of starting a process."""
        store = Project.discover(tmp_path, environment={}, clock=lambda: NOW).context().store
        for number in range(5):
            failed = [TestRun(test, Outcome.FAILED, 90.0) for test in ("a.js#<init>", 'a.js#cart "before all" hook')]
            record = build_record(number)
            store.log.append(record._replace(tests=(*record.tests, *failed)))
        assert [one.test for one in insights_of(tmp_path).slowest if "a.js" in one.test] == []

    def test_slower_test_and_job_are_open_changes(self, insights: Insights) -> None:
        found = {one.change.subject: one for one in insights.open_changes()}
        assert set(found) == {SLOW, HOSTILE[0], "unit|py3.11|github"}
        assert found["unit|py3.11|github"].minutes_a_week == pytest.approx(28 * 10, rel=0.1)

    @pytest.mark.slow
    def test_a_test_that_fails_every_time_is_said_first(self, tmp_path: Path, insights: Insights) -> None:
        """It is listed with its failures in a row and their beginning; a flaky test that passed since is not."""
        write_history(tmp_path, broken_from=BUILDS - 5)
        found = insights_of(tmp_path)
        [one] = found.failing
        assert (one.test, one.runs) == (BROKEN, 5)
        assert one.since == pytest.approx(build_record(BUILDS - 5).finished_at, abs=0.001)
        page = " ".join(project_html(found).split())
        assert "The newest 5 builds did not pass." in page
        assert page.index("1 test fails every time, which no rerun mends:") < page.index("What costs most beside them")
        assert insights.failing == ()
        assert "every time, which" not in project_html(insights)

    def test_a_test_that_fails_nearly_every_time_is_said_too(self, tmp_path: Path) -> None:
        """Its failures are no streak, because it passes now and then; one that passed last may be repaired."""
        write_history(tmp_path, broken_from=BUILDS - 17, passes_in=(BUILDS - 9, BUILDS - 4))
        found = insights_of(tmp_path)
        assert [(one.test, one.failures, one.runs) for one in found.failing] == [(BROKEN, 15, 20)]
        page = " ".join(project_html(found).split())
        assert "1 test fails every time or nearly so, which no rerun mends:" in page
        assert ": 15 of its last 20 runs</li>" in page
        assert summarize_page(found).endswith(f"fix first: {BROKEN}")

    def test_without_reports_nothing_is_said_of_tests(self) -> None:
        """A page of builds alone names no test flaky, and does not claim that none is."""
        page = project_html(Insights("shop", NOW, 1.0, builds=3, tests=0, failures=Failures(3)))
        assert page.count("No test report was read") == 4
        assert "no test report was read" in page
        for claim in ("no test is flaky", "No test was seen", "No test and no job", "lost to flaky tests"):
            assert claim not in page

    def test_what_costs_most_comes_first(self, insights: Insights) -> None:
        first = fix_first(insights)
        assert first is not None
        assert first.what == "job unit py3.11"
        assert first.how.startswith("git log --stat ")
        without = replace(insights, changes=())
        assert (fix_first(without) or first).how == f"fedstep explain '{FLAKY}'"
        assert fix_first(replace(without, flaky=())) is None

    def test_a_cost_of_less_than_a_second_is_not_none(self, insights: Insights) -> None:
        """Three reruns of a test of 5 ms cost something, though nobody would mend it for that."""
        [one] = [replace(one, minutes_a_week=0.001) for one in insights.flaky if one.test == FLAKY]
        page = project_html(replace(insights, changes=(), flaky=(one,)))
        assert '<span class="cost">under 1 s a week.</span>' in page

    def test_a_command_contains_no_hostile_name(self, insights: Insights) -> None:
        only = tuple(one for one in insights.flaky if one.test in HOSTILE)
        first = fix_first(replace(insights, changes=(), flaky=only))
        assert first is not None
        assert first.how == "fedstep explain TEST"

    def test_a_test_of_vitest_is_named_by_its_last_part(self, insights: Insights) -> None:
        """Each of its names has ` > `, which no shell should be given, and `fedstep explain TEST` helps nobody."""
        [one] = [
            replace(one, test="t/cache.test.ts#cache > answers in time") for one in insights.flaky if one.test == FLAKY
        ]
        first = fix_first(replace(insights, changes=(), flaky=(one,)))
        assert first is not None
        assert first.how == "fedstep explain 'answers in time'"

    def test_errors_are_of_builds_that_all_predicted(self, insights: Insights) -> None:
        [job] = insights.jobs
        assert job.predicted == BUILDS - 4
        assert 0 < job.median_error < job.error < job.jenkins_error or job.error > 0
        assert 0 <= job.inside <= 1

    def test_verdicts_are_counted_by_what_they_were(self, insights: Insights) -> None:
        told = insights.verdicts
        assert told.flaky_flaky > 0
        assert told.known == told.flaky_flaky

    def test_risk_is_compared_in_groups(self, insights: Insights) -> None:
        assert sum(builds for _, _, builds in insights.failures.bins) == BUILDS - 4
        assert all(0 <= share <= 1 for _, share, _ in insights.failures.bins)

    def test_a_muted_test_is_not_the_first_to_fix(self, folder: Path, insights: Insights) -> None:
        mutes = folder / ".fedstep-mutes.toml"
        mutes.write_text(f'[[mute]]\ntest = "{FLAKY}"\nowner = "ann"\nreason = "#7"\nuntil = 2030-12-31\n')
        try:
            muted = insights_of(folder)
        finally:
            mutes.unlink()
        assert [one.muted_until for one in muted.flaky if one.test == FLAKY] == ["2030-12-31"]
        told = f"{BUILDS // 6} failures in this time are of 1 test that the mute list has now"
        assert told in project_html(muted)
        assert muted.muted_failures == {FLAKY: BUILDS // 6}
        assert (fix_first(replace(muted, changes=())) or fix_first(insights)) != fix_first(
            replace(insights, changes=())
        )

    def test_an_empty_history_has_a_page_too(self, tmp_path: Path) -> None:
        empty = insights_of(tmp_path)
        assert (empty.builds, empty.jobs, fix_first(empty), most_expensive_tests(empty)) == (0, (), None, ())
        assert digest_text(make_digest(empty, 0.0)) == ""
        assert make_badge("time", empty).figure == "unknown"


class TestAcknowledged:
    def test_an_accepted_change_is_not_open(self, folder: Path, insights: Insights) -> None:
        add_acknowledgement(str(folder), Acknowledgement(SLOW, "2030-01-01", 'a "bigger" cart\n\x7f'))
        try:
            assert read_acknowledgements(str(folder)) == (Acknowledgement(SLOW, "2030-01-01", 'a "bigger" cart\n\x7f'),)
            after = insights_of(folder)
        finally:
            (folder / ACKS_FILE).unlink()
        assert SLOW not in {one.change.subject for one in after.open_changes()}
        assert len(after.open_changes()) == len(insights.open_changes()) - 1

    def test_a_change_found_later_is_new(self, folder: Path, insights: Insights) -> None:
        add_acknowledgement(str(folder), Acknowledgement(SLOW, "2020-01-01"))
        try:
            assert len(insights_of(folder).open_changes()) == len(insights.open_changes())
        finally:
            (folder / ACKS_FILE).unlink()

    @pytest.mark.parametrize("content", ["[[ack]]\n", "ack = 3\n", "not toml", "[[ack]]\nsubject = 1\non = [\n"])
    def test_an_unusable_file_is_a_warning(self, folder: Path, content: str) -> None:
        (folder / ACKS_FILE).write_text(content)
        try:
            assert any(ACKS_FILE in warning for warning in insights_of(folder).warnings)
        finally:
            (folder / ACKS_FILE).unlink()


class TestDigest:
    def test_a_mended_test_is_news_once(self, tmp_path: Path) -> None:
        """In the week in which it passed for the twentieth time, and in no later one; it is no new flaky test then."""
        write_history(tmp_path, calm_from=61)
        found = insights_of(tmp_path)
        mended_at = build_record(80).finished_at
        assert [one.mended_at for one in found.flaky if one.test == FLAKY] == [pytest.approx(mended_at, abs=0.001)]
        sections = dict(make_digest(found, mended_at - 1).sections)
        assert FLAKY in [item.name for item in sections["Mended"]]
        assert "Mended" not in dict(make_digest(found, mended_at + 1).sections)
        assert FLAKY not in [item.name for item in dict(make_digest(found, 0.0).sections)["New flaky tests"]]

    @pytest.mark.parametrize("render", [digest_text, digest_markdown, digest_slack])
    def test_nothing_is_said_when_nothing_changed(self, insights: Insights, render: Callable[..., str]) -> None:
        assert render(make_digest(insights, NOW)) == ""

    def test_it_names_new_flakes_and_slower_tests(self, insights: Insights) -> None:
        text = digest_text(make_digest(insights, 0.0))
        assert FLAKY in text
        assert f"{SLOW}: " in text
        assert "First: job unit py3.11" in text

    def test_a_message_for_slack_mentions_nobody(self, insights: Insights) -> None:
        """Slack takes `<!channel>` for a mention unless its brackets are escaped."""
        import json

        blocks = json.loads(digest_slack(make_digest(insights, 0.0)))["blocks"]
        texts = "".join(block["text"]["text"] for block in blocks)
        assert "<" not in texts
        assert "&lt;!channel&gt;" in texts
        assert all(len(block["text"]["text"]) <= 3000 for block in blocks)

    def test_markdown_holds_no_markup_of_a_name(self, insights: Insights) -> None:
        from markdown_it import MarkdownIt

        rendered = MarkdownIt().render(digest_markdown(make_digest(insights, 0.0)))
        assert "<script" not in rendered
        assert "<img" not in rendered


class TestBadge:
    def test_each_kind_has_a_figure_and_a_colour(self, insights: Insights) -> None:
        time, flaky, green = (make_badge(kind, insights) for kind in ("time", "flaky", "green"))
        assert time.figure.startswith("15 min") or time.figure.startswith("14 min")
        assert time.colour == "warning"
        assert flaky.figure == f"{len(insights.flaky)} tests"
        assert green.figure.endswith(" %")

    def test_svg_is_well_formed_and_json_is_an_endpoint(self, insights: Insights) -> None:
        import json
        from xml.etree import ElementTree

        badge = make_badge("flaky", insights)
        assert ElementTree.fromstring(badge_svg(badge)).attrib["aria-label"] == f"flaky tests: {badge.figure}"
        told = json.loads(badge_json(badge))
        assert (told["schemaVersion"], told["label"], told["message"]) == (1, "flaky tests", badge.figure)


class TestLinks:
    """Commits are links where the remote is at a known host."""

    @pytest.fixture
    def linked(self, insights: Insights) -> Insights:
        return replace(insights, host=parse_remote("https://ann:s3cr3t@github.com/acme/shop.git"))

    def test_commits_of_the_page_lead_to_what_changed(self, linked: Insights) -> None:
        page = project_html(linked)
        first = fix_first(linked)
        assert first is not None
        before, after = first.commits
        assert page.count(f'href="https://github.com/acme/shop/compare/{before}...{after}"') >= 2
        newest = build_record(BUILDS - 1).commit
        assert f'href="https://github.com/acme/shop/commit/{newest}"><code>{newest[:7]}</code></a>' in page
        assert "s3cr3t" not in page

    def test_without_a_known_host_the_page_has_no_links(self, insights: Insights) -> None:
        assert "https://" not in project_html(insights)

    @pytest.mark.parametrize("render", [digest_markdown, digest_slack])
    def test_the_digest_links_changes_and_flakes(self, linked: Insights, render: Callable[..., str]) -> None:
        text = render(make_digest(linked, 0.0))
        assert text.count("https://github.com/acme/shop/compare/") >= 3
        assert "s3cr3t" not in text

    def test_a_message_for_slack_cuts_no_link(self, linked: Insights) -> None:
        import json

        [change] = [one for one in linked.changes if one.change.subject == SLOW]
        many = tuple(
            replace(change, change=change.change._replace(subject=f"{'x' * 95}{number}")) for number in range(20)
        )
        blocks = json.loads(digest_slack(make_digest(replace(linked, changes=many), 0.0)))["blocks"]
        assert all(len(block["text"]["text"]) <= 3000 for block in blocks)
        assert all(block["text"]["text"].count("<https") == block["text"]["text"].count("|what") for block in blocks)


class TestAxis:
    def test_a_day_is_told_by_its_hours(self, insights: Insights) -> None:
        """Four builds of an afternoon had an axis of `30 Nov`, four times."""
        [job] = insights.jobs
        of_a_day = tuple(build._replace(finished_at=NOW + 3600 * at) for at, build in enumerate(job.builds[:8]))
        assert ">30 Nov<" not in (chart := draw_build_times("unit", of_a_day, (), WIDE))
        assert re.search(r">\d\d:00<", chart)
        of_weeks = tuple(build._replace(finished_at=NOW + 7 * DAY * at) for at, build in enumerate(job.builds[:8]))
        assert not re.search(r">\d\d:00<", draw_build_times("unit", of_weeks, (), WIDE))
