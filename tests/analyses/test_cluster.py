import joblib
import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster

from babelscope.analyses import analyze

from .planted import activations, write_store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    rng = np.random.default_rng(0)
    values = {
        "resid.post": np.stack([activations(rng, 3, 12, 8, shared=1.0) for _ in range(3)]),
        "mlp.act": np.stack([activations(rng, 3, 12, 24, shared=1.0) for _ in range(3)]),
    }
    return write_store(tmp_path_factory.mktemp("cluster") / "run.acts", values, demand=["a", "b"] * 6)


# Sockets of a cluster that closes are collected after it.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_dask_cluster_gives_the_tables_of_one_process(store):
    options = {"sweep": {"threshold": (0.3, 0.9)}, "n_boot": 100, "n_perm": 99}
    here = analyze(store, ["cs", "nao"], **options)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        there = analyze(store, ["cs", "nao"], jobs=2, **options)
    assert [r.name for r in here] == [r.name for r in there]
    for one, other in zip(here, there, strict=True):
        pd.testing.assert_frame_equal(one.table, other.table, check_exact=True)
