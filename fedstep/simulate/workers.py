"""Who does the work of a study: processes of this machine, or those of Dask."""

from collections.abc import Iterator
from contextlib import contextmanager

from joblib import cpu_count, parallel_config

from fedstep.errors import MissingExtra

__all__ = ["workers"]


@contextmanager
def workers(backend: str, jobs: int) -> Iterator[None]:
    """Everything that joblib runs inside is run by `jobs` processes (0: one a core), or by Dask.

    Dask's workers are those of the scheduler that DASK_SCHEDULER_ADDRESS names, which need to see the same files;
    without one, `jobs` processes of this machine. Raises MissingExtra where Dask is not installed.
    """
    jobs = jobs or cpu_count()
    if backend != "dask":
        with parallel_config(backend="loky", n_jobs=jobs):
            yield
        return
    try:
        from dask import config
        from distributed import Client
    except ImportError as error:
        raise MissingExtra("Dask is not installed", "Run: pip install 'fedstep[dask]'") from error
    own = {} if config.get("scheduler-address", None) else {"n_workers": jobs, "threads_per_worker": 1}
    with Client(**own, dashboard_address=None) as client, parallel_config(backend="dask", client=client):  # type: ignore[no-untyped-call]
        yield
