"""A digest of what changed in a project since a day, as text, as Markdown or for Slack."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from fedstep.report.markdown import code, link_to_changes, page
from fedstep.report.project_page import FixFirst, Insights, describe_minutes, fix_first, format_day
from fedstep.report.units import count, visible
from fedstep.report.wording import describe_change, name_subject, short_commit

MOST_ITEMS = 10  # of one heading


@dataclass(frozen=True, slots=True)
class DigestItem:
    """One test or job and a sentence about it."""

    name: str
    says: str
    link: str = ""  # to what changed


@dataclass(frozen=True, slots=True)
class Digest:
    """What changed since a day. It is empty if nothing did."""

    project: str
    since: float
    sections: tuple[tuple[str, tuple[DigestItem, ...]], ...] = ()
    cost: str = ""
    first: FixFirst | None = None
    first_link: str = ""  # to what changed


def make_digest(insights: Insights, since: float) -> Digest:
    """Return what changed since then (seconds since the epoch); a digest without sections if nothing did."""
    headings = {
        "New flaky tests": _list_new_flakes(insights, since),
        "Mended": _list_mended(insights, since),
        "Slower": _list_slower(insights, since),
        "As fast as before": _list_resolved(insights, since),
    }
    sections = tuple((heading, tuple(items)) for heading, lines in headings.items() if (items := list(lines)))
    if not sections:
        return Digest(insights.project, since)
    lost = sum(flaky.minutes_a_week for flaky in insights.flaky)
    red = insights.failures.by_flakes
    cost = f"Flaky tests cost {describe_minutes(lost)} a week; {count(red, 'known build')} failed by flakes alone."
    first = fix_first(insights)
    link = insights.host.link(first.commits[1], first.commits[0]) if first else ""
    return Digest(insights.project, since, sections, cost, first, link)


def _list_new_flakes(insights: Insights, since: float) -> Iterator[DigestItem]:
    for flaky in insights.flaky:
        if flaky.since >= since and not flaky.mended_at:
            commit = short_commit(flaky.commits[1])
            begun = f"first on {format_day(flaky.since)} at {commit}" if commit else "new"
            link = insights.host.link(flaky.commits[1], flaky.commits[0])
            cost = f"{describe_minutes(flaky.minutes_a_week)} a week"
            details = "; ".join(filter(None, (begun, cost, flaky.together)))
            yield DigestItem(flaky.test, details, link)


def _list_mended(insights: Insights, since: float) -> Iterator[DigestItem]:
    for flaky in insights.flaky:
        if flaky.mended_at and flaky.mended_at >= since:
            yield DigestItem(flaky.test, f"flaked last on {format_day(flaky.last)}, 20 runs passed since")


def _list_slower(insights: Insights, since: float) -> Iterator[DigestItem]:
    for finding in insights.changes:
        if finding.is_open and finding.change.found_at >= since:
            cost = describe_minutes(finding.minutes_a_week)
            link = insights.host.link(finding.change.commit_after, finding.change.commit_before)
            yield DigestItem(name_subject(finding.change), f"{describe_change(finding.change)}; {cost} a week", link)


def _list_resolved(insights: Insights, since: float) -> Iterator[DigestItem]:
    for finding in insights.changes:
        if finding.change.is_slower and finding.change.resolved_at >= since:
            yield DigestItem(name_subject(finding.change), f"went back on {format_day(finding.change.resolved_at)}")


def digest_text(digest: Digest) -> str:
    """Return the digest as text, "" when nothing changed."""
    if not digest.sections:
        return ""
    lines = [f"{visible(digest.project, 80)} since {format_day(digest.since)}"]
    for heading, items in digest.sections:
        lines += ["", heading, *(f"  {visible(item.name, 100)}: {item.says}" for item in items[:MOST_ITEMS])]
        lines += [f"  and {len(items) - MOST_ITEMS:,} more"] if len(items) > MOST_ITEMS else []
    lines += ["", digest.cost]
    if digest.first:
        lines.append(f"First: {visible(digest.first.what, 100)}. {digest.first.why} {digest.first.how}")
    return "".join(f"{line}\n" for line in lines)


def digest_markdown(digest: Digest) -> str:
    """Return the digest as Markdown, "" when nothing changed."""
    if not digest.sections:
        return ""
    blocks = [f"## fedstep: {code(digest.project)} since {format_day(digest.since)}"]
    for heading, items in digest.sections:
        lines = [f"- {code(item.name)}: {item.says}{link_to_changes(item.link)}" for item in items[:MOST_ITEMS]]
        more = [f"- and {len(items) - MOST_ITEMS:,} more"] if len(items) > MOST_ITEMS else []
        blocks += [f"### {heading}", "\n".join(lines + more)]
    blocks.append(digest.cost)
    if digest.first:
        how = f"{code(digest.first.how)}{link_to_changes(digest.first_link)}"
        blocks.append(f"**First:** {code(digest.first.what)}. {digest.first.why} {how}")
    return page(*blocks)


def digest_slack(digest: Digest) -> str:
    """Return the digest as the JSON of a Slack message with blocks, "" when nothing changed."""
    if not digest.sections:
        return ""
    title = f"{visible(digest.project, 80)} since {format_day(digest.since)}"
    blocks: list[dict[str, object]] = [
        {"type": "header", "text": {"type": "plain_text", "text": title[:150], "emoji": False}}
    ]
    for heading, items in digest.sections:
        lines = [
            f"• {_slack_code(item.name)} {_slack(item.says)}{_slack_link(item.link)}" for item in items[:MOST_ITEMS]
        ]
        more = [f"and {len(items) - MOST_ITEMS:,} more"] if len(items) > MOST_ITEMS else []
        blocks.append(_section(f"*{heading}*", *lines, *more))
    blocks.append(_section(_slack(digest.cost)))
    if digest.first:
        first = f"{_slack_code(digest.first.what)} {_slack(digest.first.why)}{_slack_link(digest.first_link)}"
        blocks.append(_section(f"*First:* {first}"))
    return f"{json.dumps({'text': _slack(title), 'blocks': blocks}, indent=1)}\n"


MOST_CHARACTERS = 3000  # of the text of a block: Slack refuses the message of a longer one


def _section(*lines: str) -> dict[str, object]:
    """Return a block with as many of the lines as fit, each whole: half an escape would be another text."""
    text = ""
    for line in lines:
        text = joined if len(joined := f"{text}\n{line}".lstrip()) <= MOST_CHARACTERS else text
    return {"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": True}}


def _slack(text: str) -> str:
    """Escape as Slack's documentation says: then nothing is a mention or a link."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _slack_link(address: str) -> str:
    return f" <{address}|what changed>" if address else ""


def _slack_code(name: str) -> str:
    return f"`{_slack(visible(name, 100)).replace('`', 'ˋ')}`"
