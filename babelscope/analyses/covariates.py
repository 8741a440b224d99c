"""Covariates of items that restrict a null: those of the prompts, and how long the prompts are."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from babelscope.errors import unknown_name

if TYPE_CHECKING:
    from babelscope.activations_store import ActivationStore

LENGTH_BIN = "length_bin"
N_BINS = 5


def covariates_of(store: "ActivationStore", items: Sequence[str], names: Sequence[str]) -> pd.DataFrame:
    """Some covariates of some items, (item, name); `length_bin` is made of the prompts' lengths.

    Raises
    ------
    BabelScopeError
        For a name that is no covariate of the store.
    """
    table = store.covariates
    if LENGTH_BIN in names and LENGTH_BIN not in table:
        table = table.assign(**{LENGTH_BIN: length_bins(store).reindex(table.index)})
    for name in names:
        if name not in table:
            known = [*map(str, table.columns), LENGTH_BIN]
            raise unknown_name(f"covariate of the items in {store.path}", name, known)
    return table.loc[list(items), list(names)]


def length_bins(store: "ActivationStore") -> pd.Series:
    """Fifth of the items by length, 0 to 4: the mean over languages of an item's rank in tokens among all items.

    Ranks and not tokens are averaged, so that a language that takes more tokens for everything does not decide.
    Items of one length are in one bin, so bins may differ in size.
    """
    ranks = store.answers.groupby("language")["n_tokens"].rank(pct=True)
    # Rounded: sums of the same ranks in another order must tie.
    mean = ranks.groupby(store.answers["item"]).mean().round(9)
    share = mean.rank(pct=True)
    return pd.Series(np.ceil(N_BINS * share.to_numpy()).astype(int) - 1, index=share.index)
