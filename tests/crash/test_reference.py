"""The undisturbed store that all others are compared with holds what its plan says, read by h5py alone."""

import h5py
import ml_dtypes
import numpy as np

from tests.crash import jobs
from tests.store.stores import value


def test_every_value_of_the_undisturbed_store_is_the_one_of_its_language_layer_and_item(whole):
    seen = 0
    for path in sorted(whole.glob("shards/*/*.h5")):
        language = path.parent.name.removeprefix("l-")
        with h5py.File(path) as file:
            items = file["rows/item"][()].tolist()
            first, last = file.attrs["item_from"], file.attrs["item_to"]
            assert items == [i for i in range(first, last) if i not in jobs.FAILED.get(language, ())]
            for site in ("resid.post", "attn.heads"):
                for kind in ("last", "all"):
                    group = file[f"{site}.{kind}"]
                    raw = group["value"].astype(np.float32)[()].astype(ml_dtypes.bfloat16)
                    splits = group["row_splits"][()] if kind == "all" else np.arange(len(items) + 1)
                    for depth, layer in enumerate(group["layer"][()].tolist()):
                        for row, item in enumerate(items):
                            got = raw[depth, splits[row] : splits[row + 1]]
                            want = value(jobs.PLAN, language, site, layer, item, len(got), kind == "all")
                            assert len(got) == (item % 3 + 1 if kind == "all" else 1)
                            assert got.tobytes() == want.astype(ml_dtypes.bfloat16).tobytes()
                            seen += got.size
    assert seen == sum(layers * rows * 6 for layers in (2, 1) for rows in (9, 15))
