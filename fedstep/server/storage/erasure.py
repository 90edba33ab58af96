"""What the store lets go of when a project asks to be forgotten, and what stays because it names nobody."""

import re
from dataclasses import asdict, dataclass

from sqlalchemy import Engine, delete
from starlette.requests import Request

from fedstep.server.http_messages import HttpProblem
from fedstep.server.identity import Identity
from fedstep.server.storage.tables import evaluations, updates
from fedstep.server.storage.update_repository import delete_updates

HEADER = "Fedstep-Project"  # not in the path, where proxies would log it
PSEUDONYM = re.compile("[0-9a-f]{32}")
FORGOTTEN = (updates, evaluations)  # each has the columns project and owner


@dataclass(frozen=True, slots=True)
class ErasureResult:
    """How many rows of a project were deleted; zeros where it had none, was forgotten before, or never was."""

    updates: int
    votes: int

    def as_json(self) -> dict[str, int]:
        """The members of the answer."""
        return asdict(self)


def named_project(request: Request, sender: Identity) -> str:
    """The project that the sender may have forgotten: its identity's, else the one whose pseudonym it knows.

    Raises Problem for a request that names none.
    """
    claimed = request.headers.get(HEADER, "")
    if not PSEUDONYM.fullmatch(claimed):
        raise HttpProblem(400, "no-project", f"{HEADER} must be the pseudonym of the project: 32 hex digits.")
    return sender.pseudonym(claimed)


def forget(engine: Engine, project: str, owner: str) -> ErasureResult:
    """Deletes the project's bodies and votes, in one transaction: those that this owner sent, for no other may ask.

    `emptied_log` has to follow. Receipts stay, or an update that is sent again would count anew; their ids are hashes
    with the project's own key.
    """
    with engine.begin() as connection:
        gone = delete_updates(connection, (updates.c.project == project) & (updates.c.owner == owner))
        cast = connection.execute(
            delete(evaluations).where(evaluations.c.project == project, evaluations.c.owner == owner)
        )
        return ErasureResult(gone, cast.rowcount)
