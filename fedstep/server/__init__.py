"""The aggregator: `create_app(Settings(...))` is an ASGI application for any server.

Both names are imported on first use: importing this package loads neither starlette nor numpy.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedstep.server.app import create_app
    from fedstep.server.settings import Settings

__all__ = ["Settings", "create_app"]


def __getattr__(name: str) -> Any:
    if name == "Settings":
        from fedstep.server.settings import Settings

        return Settings
    if name == "create_app":
        from fedstep.server.app import create_app

        return create_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
