"""What decides a Qcross model, as it stands in qcross.json. Knows no torch."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class QcrossConfig(BaseModel):
    """The joint attention of arXiv:2310.15258.

    Parameters
    ----------
    cross_query : bool
        Whether there is a second query. Without it the query of the model is masked alone: structured attention
        dropout by itself.
    keep_cross, keep_same : float
        Keep probabilities while training (see `masks.language_masks`); 1 - P_mask. Both 0: each query owns its pairs
        ("non-interfering"); above 0: they share some ("interfering").
    keep_cross_eval, keep_same_eval : float
        The same whenever the model is not trained.
    double_count : bool
        Whether what is open to both queries counts twice, as published.
    form : {"auto", "logaddexp", "doubled", "partition"}
        How it is computed; "auto" takes `partition` where both keep probabilities are 0, else `logaddexp`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cross_query: bool = True
    keep_cross: float = Field(default=0.0, ge=0, le=1)
    keep_same: float = Field(default=0.0, ge=0, le=1)
    keep_cross_eval: float = Field(default=0.0, ge=0, le=1)
    keep_same_eval: float = Field(default=0.0, ge=0, le=1)
    double_count: bool = True
    form: Literal["auto", "logaddexp", "doubled", "partition"] = "auto"

    @model_validator(mode="after")
    def _partition_is_one(self) -> "QcrossConfig":
        kept = (self.keep_cross, self.keep_same, self.keep_cross_eval, self.keep_same_eval)
        if self.form == "partition" and any(kept):
            raise ValueError("form partition needs every keep probability at 0: choose auto")
        return self

    def kept(self, *, training: bool) -> tuple[float, float]:
        """`keep_cross` and `keep_same` that hold now."""
        if training:
            return self.keep_cross, self.keep_same
        return self.keep_cross_eval, self.keep_same_eval
