"""Define what a mode adds to the application: routes, and a task beside the writer."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

from fedstep.schema.schema import Schema
from fedstep.server.aggregation.fedbuff import AggregationRules
from fedstep.server.metrics import Metrics
from fedstep.server.settings import Settings

Routes: TypeAlias = Mapping[tuple[str, str], Callable[..., Any]]  # endpoints by method and path


@dataclass(frozen=True, slots=True)
class ModeContext:
    """The parts of the application that a mode's service shares with it."""

    settings: Settings
    schema: Schema
    rules: Mapping[str, AggregationRules]
    metrics: Metrics
    clock: Callable[[], float]


class ModeService(Protocol):
    """Routes that take the place of the plain ones, and work that runs as long as the application."""

    def routes(self) -> Routes:
        """Return the endpoints by method and path."""

    def lifespan(self) -> AbstractAsyncContextManager[None]:
        """Run while the application does."""


@runtime_checkable
class ServiceMode(Protocol):
    """A mode that adds a service to the application."""

    def create_service(self, context: ModeContext) -> ModeService:
        """Return the service. Raise UsageError for settings that cannot work."""
