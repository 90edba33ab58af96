"""Define the options that several commands share; each option also has an environment variable."""

import os
import re
import time
from collections.abc import Callable
from functools import reduce
from typing import TYPE_CHECKING, Required, TypedDict, TypeVar, Unpack

import click
from click.core import ParameterSource

from fedstep.cli.output import echo_warnings
from fedstep.errors import UsageError

if TYPE_CHECKING:
    from fedstep import Aggregator
    from fedstep.federation.sync import AggregatorLink
    from fedstep.federation.trust import Secret

F = TypeVar("F", bound=Callable[..., object])
FORMATS = ("text", "json", "markdown")  # of predict, triage, train, verdict, reports and history show
ALL_FORMATS = (*FORMATS, "slack")


class FloatRange(click.FloatRange):
    """A number within bounds. click lets `nan` through, which is neither below nor above a bound."""

    def convert(self, value: float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number."""
        converted: float = super().convert(value, param, ctx)
        if converted != converted:
            self.fail(f"{value} is no number.", param, ctx)
        return converted


class FormatChoice(click.Choice[str]):
    """The formats of a command. A variable or file that names one which only other commands have leaves the default."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the format."""
        is_of_another = value in ALL_FORMATS and value not in self.choices
        if (
            is_of_another
            and param
            and ctx
            and ctx.get_parameter_source(param.name or "") != ParameterSource.COMMANDLINE
        ):
            return str(param.default)
        return super().convert(value, param, ctx)


class OptionSettings(TypedDict, total=False):
    """Keyword arguments of `click.option`."""

    type: click.ParamType[object]
    default: object
    help: str
    metavar: str
    multiple: bool
    is_flag: bool
    show_default: bool
    required: bool


def option(name: str, *aliases: str, parameter: str = "", **settings: Unpack[OptionSettings]) -> Callable[[F], F]:
    """Return a decorator for the option `--name`, which is also set by FEDSTEP_<NAME>.

    Args:
        name: The name without dashes at the front.
        aliases: Other spellings on the command line.
        parameter: The function's parameter, by default the name with underscores.
        settings: What else `click.option` takes.
    """
    underscored = name.replace("-", "_")
    variable = f"FEDSTEP_{underscored.upper()}"
    settings.setdefault("show_default", settings.get("default") not in (None, "", ()))
    return click.option(f"--{name}", *aliases, parameter or underscored, envvar=variable, **settings)


def parse_since(text: str, now: float) -> float:
    """Return the moment in seconds since the epoch, 0 for "". Raise UsageError for text that is no moment."""
    if match := re.fullmatch(r"(\d{1,4})([dw])", text.strip()):
        return now - int(match[1]) * (7 if match[2] == "w" else 1) * 86_400
    from fedstep.ingest.ci import parse_time

    seconds = parse_time(text) if text else 0.0
    if not isinstance(seconds, float):
        raise UsageError(f"--since: {seconds.reason}", "Give 7d, 2w or 2030-12-31")
    return seconds


def option_variables(command: click.Command) -> frozenset[str]:
    """Return the environment variables of the options of this command and of all commands below it."""
    own = frozenset(each.envvar for each in command.params if isinstance(each.envvar, str))
    if not isinstance(command, click.Group):
        return own
    with click.Context(command) as context:
        below = (command.get_command(context, name) for name in command.list_commands(context))
        return own.union(*(option_variables(each) for each in below if each))


def explicit_options(*parameters: str) -> tuple[str, ...]:
    """Return those of the running command's options that the command line, the environment or a file sets."""
    source = click.get_current_context().get_parameter_source
    return tuple(f"--{name.replace('_', '-')}" for name in parameters if source(name) != ParameterSource.DEFAULT)


def combine(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Return one decorator for several options, in the order of the help."""
    return lambda command: reduce(lambda done, decorate: decorate(done), reversed(decorators), command)


HISTORY = option(
    "history",
    metavar="DIR",
    default=".fedstep",
    help="Folder of the history, relative to the repository root; git: a ref of the repository.",
)
PART = option(
    "path",
    parameter="part",
    metavar="PART",
    default="",
    help="Folder of the repository that has a history of its own, such as services/api.",
)
STRICT = option("strict", is_flag=True, help="Exit with an error code if something failed.")


def _format_option(*forms: str) -> Callable[[F], F]:
    return option("format", parameter="output_format", type=FormatChoice(forms), default="text", help="Output format.")


FORMAT, LIST_FORMAT = _format_option(*FORMATS), _format_option("text", "json")
JENKINS = option(
    "jenkins-estimate", is_flag=True, help="Show Jenkins' own estimate of the duration; always shown in Jenkins."
)
JSON = option("json", parameter="as_json", is_flag=True, help="Print JSON instead of text.")
JUNIT = option(
    "junit",
    metavar="GLOB",
    multiple=True,
    help="Test reports to read: files, folders, or globs in which ** matches any folders. Can be repeated.",
)
ALLOW_STALE = option(
    "allow-stale",
    is_flag=True,
    help="Read reports that are older than the start of this job, as those of a job before.",
)
REPORTS = option(
    "junit", metavar="GLOB", multiple=True, help="Test reports to leave out of the change while they are untracked."
)
MOST = option(
    "max-quarantined",
    type=click.IntRange(0),
    default=50,
    help="Largest number of tests that may be quarantined at once.",
)
RULES = combine(
    option(
        "forgive-above",
        type=FloatRange(0.0, 1.0),
        default=None,
        help="Also forgive failures that are flaky with at least this probability, such as 0.95.",
    ),
    option(
        "new-flakes",
        type=click.Choice(["", "fail"]),
        default="",
        help="With 'fail', known flakes are forgiven and tests that newly flake or fail are not.",
    ),
    MOST,
)
EXIT_CODE = option("exit-code", type=click.INT, default=None, help="Exit code of the command that ran the tests.")
LOG = combine(
    option("log", metavar="FILE", default="", help="Log of the job; its end tells whether the infrastructure failed."),
    EXIT_CODE,
)
KEEP = option("keep", type=click.IntRange(1), default=500, help="Number of builds kept in the history.")
NETWORK = combine(
    option(
        "aggregator", metavar="URL", default="", help="Aggregator to exchange coefficients with. Default: local only."
    ),
    option("token", metavar="TOKEN", default="", help="Token for the aggregator. Prefer FEDSTEP_TOKEN."),
    option("timeout", type=FloatRange(0.1), default=10.0, help="Maximum seconds per exchange."),
    option("budget", type=FloatRange(0.1), default=30.0, help="Maximum seconds for all network access."),
)
HELPER = combine(
    option("helper", metavar="URL", default="", help="Helper of the aggregator: each receives one share of an update."),
    option("helper-token", metavar="TOKEN", default="", help="Token for the helper. Prefer FEDSTEP_HELPER_TOKEN."),
)
STORE = option(
    "store",
    metavar="URL",
    default="sqlite:///fedstep.db",
    help="Database of the aggregator: sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME.",
)


class NetworkOptions(TypedDict, total=False):
    """The options of NETWORK and HELPER, as click passes them on; a command may have only some of them."""

    aggregator: Required[str]
    token: Required[str]
    timeout: float
    budget: float
    helper: str
    helper_token: str


def aggregator_from(given: NetworkOptions, timeout: float = 10.0) -> "Aggregator | None":
    """Return the aggregator that the options describe, None without a URL; `timeout` stands in where none is given.

    A token is left out where only a file of the repository names its address.
    """
    from fedstep import Aggregator
    from fedstep.federation.ci_token import can_request_token
    from fedstep.federation.trust import withhold_unconfirmed

    url, helper = given["aggregator"], given.get("helper", "")
    if not url:
        return None
    own = _secret_for("aggregator", url, "token", given["token"])
    other = _secret_for("helper", helper, "helper_token", given.get("helper_token", ""))
    confirmed = own.confirmed and other.confirmed
    is_job = not (confirmed or own.token) and can_request_token(os.environ)
    job = (withhold_unconfirmed(url),) if is_job else ()
    notices = tuple(dict.fromkeys((*own.withheld, *other.withheld, *job)))
    return Aggregator(url, own.token, given.get("timeout", timeout), helper, other.token, confirmed, notices)


def _secret_for(name: str, url: str, token_name: str, token: str) -> "Secret":
    """Return what may be sent to the address in the option `name`, given the option `token_name`."""
    from fedstep.federation.trust import Secret, load_trusted, resolve_secret
    from fedstep.ingest.git_process import repository_root

    if not url:
        return Secret()
    folder = os.getcwd()
    return resolve_secret(
        url,
        token,
        os.environ.get(f"FEDSTEP_{token_name.upper()}_FOR", ""),
        is_from_file(name),
        is_from_file(token_name),
        load_trusted(os.environ, repository_root(folder) or folder),
        name,
    )


def is_from_file(parameter: str) -> bool:
    """Return whether a configuration file of the repository sets this option of the running command."""
    source = click.get_current_context().get_parameter_source(parameter)
    return source == ParameterSource.DEFAULT_MAP


def link_to(aggregator: "Aggregator", started_at: float, budget: float) -> "AggregatorLink":
    """Return a link to the aggregator, and warn about tokens that are sent unencrypted.

    It works until `budget` seconds after `started_at` (seconds since the epoch).
    """
    from fedstep.federation.sync import connect, token_warnings

    echo_warnings(*token_warnings(aggregator))
    return connect(aggregator, budget - (time.time() - started_at), os.environ)


def require_aggregator(aggregator: "Aggregator | None") -> "Aggregator":
    """Return the aggregator. Raises UsageError if the options name none."""
    if not aggregator:
        raise UsageError("no aggregator is given", "Give one with --aggregator or FEDSTEP_AGGREGATOR")
    return aggregator
