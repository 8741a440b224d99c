import dataclasses
import json

import pytest

from babelscope.schema import CapturePlan, ModelRef, Position, Site

MODEL = ModelRef("path/to/model", "LlamaForCausalLM", 4, "float32", "w" * 64, "t" * 64)
PLAN = CapturePlan(
    MODEL, "p" * 64, ("en", "de"), tuple(f"i{i}" for i in range(10)), (Site("mlp.act", 0), Site("mlp.act", 2)),
    (Position("last"), Position("segment", "question")), "labels", "torch", 4, 2048, "float32",
)  # fmt: skip


TRANSLATING = dataclasses.replace(PLAN, source_tokens=("eng_Latn", "deu_Latn"))
ATTENTION = dataclasses.replace(PLAN, sites=(Site("attn.mass", 0), Site("attn.scores", 0)), n_keys=9, segments=("b",))


@pytest.mark.parametrize("plan", [PLAN, ATTENTION, TRANSLATING])
def test_a_plan_survives_json(plan):
    assert CapturePlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_a_plan_that_was_written_before_a_field_came_keeps_its_fingerprint():
    assert "source_tokens" not in PLAN.to_json()
    assert PLAN.fingerprint == "50169b7539a1d4bb8452cde8fa03ab749afdeb664a98e3eb557167e760765593"


def test_keys_and_segments_decide_numbers_and_shapes():
    assert len({p.fingerprint for p in (ATTENTION, *(dataclasses.replace(ATTENTION, **c) for c in
                                                     ({"n_keys": 8}, {"segments": ()})))}) == 3  # fmt: skip
    assert ATTENTION.extents(Site("attn.mass", 0)) == (4,)
    assert ATTENTION.extents(Site("attn.scores", 0)) == (9,)
    assert ATTENTION.extents(Site("mlp.act", 0)) == ()


def test_summaries_of_even_attention_stand_behind_those_of_the_head():
    assert "even" not in ATTENTION.to_json()
    even = dataclasses.replace(ATTENTION, even=True)
    assert even.summaries == (*ATTENTION.summaries, *(f"even:{name}" for name in ATTENTION.summaries))
    assert even.extents(Site("attn.mass", 0)) == (8,)
    assert CapturePlan.from_json(json.loads(json.dumps(even.to_json()))) == even


def test_the_fingerprint_ignores_where_the_model_lies():
    moved = dataclasses.replace(MODEL, source="elsewhere", adapter="there")
    assert dataclasses.replace(PLAN, model=moved).fingerprint == PLAN.fingerprint
    assert moved.nameless == MODEL.nameless


@pytest.mark.parametrize(
    "change",
    [
        {"prompts_sha256": "q" * 64}, {"languages": ("de", "en")}, {"items": ("i0",)}, {"sites": (Site("mlp.act", 0),)},
        {"positions": (Position("first"),)}, {"answers": "texts"}, {"continuation": 4}, {"backend": "nnsight"},
        {"block_items": 5}, {"token_budget": 1}, {"dtype": "float16"}, {"source_tokens": ("eng_Latn", "deu_Latn")},
        {"pass_cost": 1024}, {"pooled": 2}, {"even": True}, {"spellings": True},
        {"model": dataclasses.replace(MODEL, attn_implementation="sdpa")},
        {"model": dataclasses.replace(MODEL, weights_sha256="x" * 64)},
        {"model": dataclasses.replace(MODEL, tokenizer_sha256="x" * 64)},
        {"model": dataclasses.replace(MODEL, adapter_sha256="x" * 64)},
        {"model": dataclasses.replace(MODEL, adapter_merged=True)},
        {"model": dataclasses.replace(MODEL, quantization="nf4")},
        {"model": dataclasses.replace(MODEL, chat_template_sha256="x" * 64)},
    ],
)  # fmt: skip
def test_the_fingerprint_sees_whatever_decides_the_numbers(change):
    assert dataclasses.replace(PLAN, **change).fingerprint != PLAN.fingerprint


def test_blocks_cover_every_item_once():
    assert [i for b in range(PLAN.n_blocks) for i in PLAN.block(b)] == list(range(10))


def test_the_blocks_of_a_plan_are_those_of_each_language_in_turn():
    assert PLAN.blocks == (("en", 0), ("en", 1), ("en", 2), ("de", 0), ("de", 1), ("de", 2))


def test_layers_are_grouped_by_site():
    assert PLAN.site_layers() == {"mlp.act": (0, 2)}
