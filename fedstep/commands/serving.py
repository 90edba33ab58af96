"""The aggregator's side."""

import gc
from typing import Any

import click

from fedstep.commands.options import option
from fedstep.commands.sinks import say
from fedstep.errors import MissingExtra

__all__ = ["serve"]


@click.command()
@option("host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Address to listen on.")
@option("port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="Port; 0 takes any free one.")
@option("store", metavar="URL", default="sqlite:///fedstep.db", show_default=True, help="Database of the aggregator.")
@option("tokens", metavar="LIST", default="", help="Accepted tokens, comma-separated; keep them in FEDSTEP_TOKENS.")
@option("buffer", type=click.IntRange(1), default=10, show_default=True, help="Updates folded at once.")
@option("wait", type=click.FloatRange(0.1), default=60.0, show_default=True, help="Seconds before fewer are folded.")
@option("projects", type=click.IntRange(1), default=1, show_default=True, help="Distinct projects that needs.")
@option("from-zero", is_flag=True, help="Begin with an empty model instead of the starter model.")
def serve(**given: Any) -> int:
    """Run the aggregator.

    \b
    Example: fedstep serve --store sqlite:///fedstep.db
    """
    try:
        from fedstep.server.app import serve as run_server
        from fedstep.server.buffer import Folding
        from fedstep.server.settings import Settings
    except ImportError as error:
        raise MissingExtra(f"{error.name} is not installed", "Run: pip install 'fedstep[server]'") from error
    from fedstep.federation.kept import starter_bytes

    tokens = tuple(token for token in (word.strip() for word in given["tokens"].split(",")) if token)
    folding = Folding(updates=given["buffer"], seconds=given["wait"], projects=given["projects"])
    gc.enable()  # the one command that stays
    starter = b"" if given["from_zero"] else starter_bytes()
    settings = Settings(given["host"], given["port"], given["store"], tokens, starter, folding=folding)
    run_server(settings, lambda url: say(f"aggregator on {url}, Ctrl-C stops it"))
    return 0
