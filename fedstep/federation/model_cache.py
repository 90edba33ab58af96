"""The model that predicts: the one last pulled, as the history keeps it, else the starter model of the package."""

import json
import os
from typing import NamedTuple

from fedstep.errors import FedstepError
from fedstep.federation.messages import Model, check_model, shape, unpack_model
from fedstep.history.project_store import ProjectStore
from fedstep.schema.schema import schema

_STARTER = os.path.join(os.path.dirname(os.path.dirname(__file__)), "model", "starter.safetensors")


class CachedModel(NamedTuple):
    """A model and where it came from. `url` is "" for the starter model, `warning` says why it had to be that one."""

    model: Model
    etag: str = ""
    fetched_at: float = 0.0  # seconds since the epoch: when the aggregator last said that this is the newest
    url: str = ""
    warning: str = ""


def load_model(store: ProjectStore) -> CachedModel:
    """The model last pulled, whole and of this schema; else the starter model."""
    body = store.read("model.safetensors")
    if not body:
        return CachedModel(load_starter_model())
    try:
        model = unpack_model(body)
        check_model(model, shape(schema()))
        about = json.loads(store.read("model.json") or b"{}")
        return CachedModel(
            model, str(about.get("etag", "")), float(about.get("fetched_at", 0)), str(about.get("url", ""))
        )
    except (FedstepError, ValueError, TypeError, AttributeError) as error:
        return CachedModel(
            load_starter_model(), warning=f"the pulled model cannot be used ({error}); the starter model answers"
        )


def save_model(store: ProjectStore, body: bytes, etag: str, url: str, now: float) -> None:
    """Store a model as it came, beside where and when it did."""
    store.write("model.safetensors", body)
    mark_current(store, etag, url, now)


def mark_current(store: ProjectStore, etag: str, url: str, now: float) -> None:
    """Note that the aggregator has just called the stored model the newest."""
    store.write("model.json", json.dumps({"etag": etag, "fetched_at": round(now), "url": url}).encode())


def load_starter_bytes() -> bytes:
    """The starter model of the package, as it is on the wire."""
    with open(_STARTER, "rb") as file:
        return file.read()


def load_starter_model() -> Model:
    """The starter model: learned from public recorded CI by `python -m tests.studies.starter`."""
    return unpack_model(load_starter_bytes())
