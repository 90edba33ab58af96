"""The model that predicts: the one last pulled, cached in the history, else the starter model of the package."""

import json
import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from fedstep.errors import MALFORMED, FedstepError
from fedstep.federation.messages import (
    LARGEST_MESSAGE,
    NO_PROMISE,
    Model,
    PrivacyGuarantee,
    check_model,
    shape,
    unpack_model,
)
from fedstep.history.project_store import ProjectStore, with_types
from fedstep.schema.schema import schema

_STARTER = os.path.join(os.path.dirname(os.path.dirname(__file__)), "model", "starter.safetensors")


class CachedModel(NamedTuple):
    """A model and its origin; `url` is "" for the starter model, and `warning` says why it is used after a pull."""

    model: Model
    etag: str = ""
    fetched_at: float = 0.0  # seconds since the epoch: when the aggregator last confirmed that this is the newest
    url: str = ""
    warning: str = ""


class KnownStore(NamedTuple):
    """What an aggregator served last: the lineage of its store ("": it named none), schema, and candidate's version."""

    lineage: str = ""
    schema: str = ""  # "": nothing is known of it
    version: int = 0


KnownStores: TypeAlias = Mapping[str, KnownStore]  # by the URL of the aggregator, the one asked last first
NONE_KNOWN: KnownStores = MappingProxyType({})
MOST_KNOWN = 8


def load_model(store: ProjectStore) -> CachedModel:
    """Return the model last pulled, if it is intact and of the local schema; else the starter model."""
    try:
        body = store.read("model.safetensors", LARGEST_MESSAGE)
        if not body:
            return CachedModel(load_starter_model())
        model = unpack_model(body)
        check_model(model, shape(schema()))
        origin = json.loads(store.read("model.json") or b"{}")
        return CachedModel(
            model, str(origin.get("etag", "")), float(origin.get("fetched_at", 0)), str(origin.get("url", ""))
        )
    except (FedstepError, *MALFORMED) as error:
        return CachedModel(
            load_starter_model(), warning=f"the pulled model cannot be used ({error}); the starter model answers"
        )


def load_terms(store: ProjectStore) -> tuple[str, PrivacyGuarantee]:
    """Return where the stored model was pulled from and what privacy that promises, even if its schema is another.

    An aggregator counts what a project gave over all schemas, and so does `contributed.json`.
    """
    try:
        promise = unpack_model(store.read("model.safetensors", LARGEST_MESSAGE) or b"").promise
        return str(json.loads(store.read("model.json") or b"{}").get("url", "")), promise
    except (FedstepError, *MALFORMED):
        return "", NO_PROMISE


def load_known_stores(store: ProjectStore) -> KnownStores:
    """Return what each aggregator served last, also those from which the stored model is not."""
    try:
        known = json.loads(store.read("model.json") or b"{}").get("known", {})
        return {url: with_types(KnownStore(*row)) for url, row in list(known.items())[:MOST_KNOWN]}
    except (FedstepError, *MALFORMED):
        return NONE_KNOWN


def save_model(
    store: ProjectStore, body: bytes, etag: str, url: str, now: float, known: KnownStores = NONE_KNOWN
) -> None:
    """Store a model's bytes with their ETag, URL and time, and what is known of each aggregator."""
    store.write("model.safetensors", body)
    mark_current(store, etag, url, now, known)


def mark_current(store: ProjectStore, etag: str, url: str, now: float, known: KnownStores = NONE_KNOWN) -> None:
    """Record that the aggregator has just confirmed the stored model as the newest."""
    origin = {"etag": etag, "fetched_at": round(now), "url": url, "known": dict(list(known.items())[:MOST_KNOWN])}
    store.write("model.json", json.dumps(origin).encode())


def load_starter_bytes() -> bytes:
    """Return the bytes of the starter model of the package."""
    with open(_STARTER, "rb") as file:
        return file.read()


def load_word_weights() -> Sequence[float]:
    """Return the weights of the flaky task by which the words of a failed test are judged: those of the starter model.

    An aggregator that chose them could make the one coefficient of this evidence reveal a single word.
    """
    return load_starter_model().production["flaky"]


def load_starter_model() -> Model:
    """Return the starter model, which `python -m tests.studies.starter` learned from public recorded CI."""
    return unpack_model(load_starter_bytes())
