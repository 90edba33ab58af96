"""Findings as they look in practice, and the same with the names an attacker would choose."""

from collections.abc import Callable

import pytest

from fedstep.results import (
    ExampleCounts,
    Exchange,
    FailureVerdict,
    FeatureContribution,
    Interval,
    ModelUsed,
    Prediction,
    ReportCounts,
    Risk,
    SentUpdate,
    TestRisk,
    TrainReport,
    TriageReport,
)
from fedstep.types import BuildOutcome, Dropped, Duration, Unavailable

Findings = tuple[Prediction, TriageReport, TrainReport]
MODEL = ModelUsed("production", 42, 7_260.0, "https://fedstep.acme.example")
INTERVAL = Interval(250.4, 212.0, 305.0, "jenkins", 281.0)


def risks(name: str) -> tuple[TestRisk, ...]:
    """Two tests likely to flake; the first has the given name."""
    return (
        TestRisk(
            test=name,
            probability=0.62,
            reasons=(
                FeatureContribution("source=sleep", 0.41),
                FeatureContribution("flip-rate-20=0.1", 0.5),
                FeatureContribution("flip-rate-20=0.3", 0.35),
                FeatureContribution("failure-rate-50=0.03", -0.2),
            ),
            runs=30,
            failures=4,
            flips=6,
            last_outcomes="ppppfppkpffp",
            file=name,
            line=42,
        ),
        TestRisk("com.acme.cart.CartTest#totals", 0.21, (FeatureContribution("runs=absent", 0.3),)),
    )


def failures(name: str) -> tuple[FailureVerdict, ...]:
    """A flake with the given name everywhere, and a regression."""
    return (
        FailureVerdict(
            name,
            0.91,
            (FeatureContribution("failure-kind=timeout", 0.9), FeatureContribution(name, 0.4)),
            "flaky",
            name,
            name,
            42,
        ),
        FailureVerdict(
            "com.acme.cart.CartTest#totals",
            0.04,
            (FeatureContribution("change=itself", -1.2), FeatureContribution("failures-in-a-row=2", -0.4)),
            "regression",
            "org.opentest4j.AssertionFailedError",
            "src/test/java/com/acme/cart/CartTest.java",
            88,
        ),
    )


def findings(name: str) -> Findings:
    """One finding of each kind in which every free text is `name`."""
    reading = ReportCounts(4, 1204, (Dropped(name, name), Dropped("target/TEST-b.xml", "control character", kept=True)))
    risk = Risk(0.18, (FeatureContribution("failure-rate-20=0.2", 0.4), FeatureContribution("files-changed=3", -0.2)))
    exchange = Exchange(name, (SentUpdate(3_120, (("flaky", 32), ("build-duration", 8))),), 0, 41, 42, 40, 41)
    model = ModelUsed("production", 42, 7_260.0, name)
    return (
        Prediction("ok", INTERVAL, risk, risks(name), model, name, (name,), 120, 1204),
        TriageReport("ok", failures(name), model, reading, warnings=(name,)),
        TrainReport(
            "ok",
            "5f" * 16,
            BuildOutcome.UNSTABLE,
            Duration(262.0, "jenkins"),
            INTERVAL,
            failures(name),
            risks(name),
            model,
            reading,
            ExampleCounts(71, 310),
            exchange,
            incident=True,
            incident_reason=name,
            warnings=(name,),
        ),
    )


# What an author of a pull request could call a test, a class, a branch or a file.
HOSTILE = (
    "\x1b]0;owned\x07\x1b[2J\x1b[31mred",
    "\x9b31mC1 control",
    "\x1b]8;;https://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "user\u202egnp.exe",
    "\u2066isolate\u2069 zero\u200bwidth\ufeff\u00ad",
    "filler\u3164\u115f\u2800 tag\U000e0041 selector\ufe0f",
    "line\nbreak\rreturn\x0bvertical\x0cfeed\x85next\u2028separator\u2029end",
    "::set-output name=status::owned",
    "  ::error file=a::b",
    "ok\n::add-mask::secret\n",
    "ok ::stop-commands::x",
    "%0A::set-env name=PATH::/tmp%0D",
    "a##[add-path]/tmp##vso[task.setvariable variable=x]y##teamcity[x]",
    "title,line=1::injected: yes",
    "a | b || c \\| d \\\\| e",
    "`code` ``two`` ```three",
    "``",
    "` leading and trailing `",
    "<img src=x onerror=alert(1)>",
    "</code></td></table><script>alert(1)</script>",
    "&lt;b&gt; &amp; &#60; \" ' =",
    "[link](javascript:alert(1)) ![i](https://evil.example/p.png)",
    "@everyone @acme/team #1 GH-2 acme/app#3 user@example.org https://evil.example www.evil.example",
    "# heading\n\n- list\n\n---\n> quote\n\n<details>",
    "\\`escaped\\` **bold** _em_ ~~gone~~ $x$ :smile:",
    "value\nEOF\nstatus<<EOF\nowned\nEOF",
    "delimiter0\nfailure-risk=0\ndelimiter0",
    "'; touch /tmp/owned; '",
    '"; $(touch /tmp/owned) `touch /tmp/owned` ${{ secrets.X }} %PATH% !x!',
    "A=1\nB=2 # comment",
    "lone \ud800 and \udfff surrogates",
    "section_start:1560896352:x\r\x1b[0K",
    "n" * 100_000 + "tail",
    "漢字" * 5_000,
    "e" + "\u0301" * 3_000,
    "",
    " ",
    "\x00",
    "{0} {name} %s %(x)s $name",
    "=cmd|' /C calc'!A0",
    "../../etc/passwd",
)


@pytest.fixture(params=HOSTILE, ids=range(len(HOSTILE)))
def hostile(request: pytest.FixtureRequest) -> str:
    """One hostile name after the other."""
    return str(request.param)


@pytest.fixture(scope="session")
def ordinary() -> Findings:
    """Findings with an ordinary name."""
    return findings("com.acme.net.RetryTest#reconnectsAfterTimeout")


@pytest.fixture(scope="session")
def named() -> Callable[[str], Findings]:
    """Makes findings in which every free text is the given name."""
    return findings


@pytest.fixture(scope="session")
def nothing_known() -> Findings:
    """Findings of the first build of a new user without git, reports or an aggregator."""
    absent = Unavailable("no build of this project is known yet")
    return (
        Prediction("local", absent, absent, (), ModelUsed()),
        TriageReport("local", (), ModelUsed(), ReportCounts()),
        TrainReport(
            "local",
            "",
            BuildOutcome.PASSED,
            absent,
            absent,
            (),
            (),
            ModelUsed(),
            ReportCounts(),
            ExampleCounts(),
            Unavailable("no aggregator is configured"),
        ),
    )
