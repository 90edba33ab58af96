"""The client's third question: that the aggregator delete what it holds of this project."""

from dataclasses import dataclass

from fedstep.errors import AggregatorError
from fedstep.federation.client import NOT_ONE
from fedstep.federation.client import _json as members
from fedstep.federation.client import _refusal as refusal
from fedstep.federation.patience import Patience, ask_until
from fedstep.federation.transport import Answer, Send, redacted

__all__ = ["Forgotten", "ask_to_forget"]


@dataclass(frozen=True, slots=True)
class Forgotten:
    """How many updates and votes the aggregator deleted: zeros where it held none of this project, for this sender."""

    updates: int
    votes: int


def ask_to_forget(project: str, url: str, send: Send, patience: Patience | None = None) -> Forgotten:
    """What was deleted of the project with this pseudonym; asking twice is harmless. Raises AggregatorError."""
    headers = {"Accept": "application/json", "Fedstep-Project": project}
    where = redacted(url)
    answer = ask_until(where, lambda left: send("POST", "/v1/forget", headers, b"", left), patience or Patience())
    if answer.status == 200:
        return _forgotten(answer, where)
    if answer.status in (404, 405):
        raise AggregatorError(f"{where} answered {answer.status}: it cannot be asked to forget", "Ask whoever runs it.")
    raise refusal(answer, where)


def _forgotten(answer: Answer, where: str) -> Forgotten:
    found = members(answer)
    updates, votes = (found.get(name) for name in ("updates", "votes"))
    if type(updates) is not int or type(votes) is not int or min(updates, votes) < 0:
        raise AggregatorError(f"{where} answered 200 and not how much it deleted", NOT_ONE)
    return Forgotten(updates, votes)
