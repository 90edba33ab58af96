"""Run an aggregator, or the helper of one, as a process."""

from collections.abc import Callable

from starlette.applications import Starlette

from fedstep.server.app import create_app
from fedstep.server.listener import checked, listener, run, start_logging
from fedstep.server.settings import Settings


def serve(
    settings: Settings,
    ready: Callable[[str], None] = print,
    create: Callable[[Settings], Starlette] = create_app,
) -> None:
    """Run the application that `create` makes until SIGTERM or Ctrl+C.

    `ready` gets its URL as soon as connections are accepted (port 0: any). Raise UsageError for settings that cannot
    work, before anything listens.
    """
    start_logging(settings.log_format, settings.log_level)
    scheme = "https" if settings.tls and checked(settings.tls) else "http"
    app = create(settings)
    socket = listener(settings.host, settings.port)
    host = f"[{settings.host.strip('[]')}]" if ":" in settings.host else settings.host
    ready(f"{scheme}://{host}:{socket.getsockname()[1]}")
    run(app, socket, settings, app.state.stopping)
