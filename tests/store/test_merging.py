"""Shards of several stores of one plan in one store."""

from dataclasses import replace

import h5py
import numpy as np
import pytest

from babelscope.activations_store import StoreWriter
from babelscope.errors import BabelScopeError
from babelscope.workflows import exchange
from tests.store.stores import fill, make_block, make_plan, make_prompts, shards_of


def part(path, plan, prompts, blocks, change=None):
    with StoreWriter.create(path, plan, prompts, {"job": path.name}) as writer:
        for language, index in blocks:
            block = make_block(plan, language, index)
            writer.put(change(block) if change else block)
    return path


def test_the_parts_of_a_plan_become_the_whole(tmp_path):
    prompts = make_prompts(7)
    plan = make_plan(prompts, "bfloat16")
    whole = fill(tmp_path / "whole.acts", plan, prompts)
    blocks = plan.blocks
    parts = [part(tmp_path / f"{i}.acts", plan, prompts, blocks[i : i + 5]) for i in (0, 3)]
    told = str(exchange.merge(tmp_path / "out.acts", parts, dry_run=True))
    assert "8 of 8, 2 of them in more than one store" in told
    assert not (tmp_path / "out.acts").exists()
    merged = exchange.merge(tmp_path / "out.acts", parts)
    assert shards_of(merged.path) == shards_of(whole.path)
    assert [p["provenance"]["job"] for p in merged.provenance["merged_from"]] == ["0.acts", "3.acts"]
    assert len(list((merged.path / "runs").iterdir())) == 4
    with StoreWriter.resume(merged.path, plan) as writer:
        assert writer.pending() == []
    with pytest.raises(BabelScopeError, match="exists already"):
        exchange.merge(tmp_path / "out.acts", parts)


def test_different_values_under_one_name_are_refused_by_name(tmp_path):
    prompts = make_prompts(3)
    plan = make_plan(prompts)

    def other(block):
        key = next(iter(block.rows))
        return replace(block, rows={**block.rows, key: replace(block.rows[key], values=block.rows[key].values + 1)})

    a = part(tmp_path / "a.acts", plan, prompts, plan.blocks)
    b = part(tmp_path / "b.acts", plan, prompts, plan.blocks[1:2], other)
    with pytest.raises(BabelScopeError, match=r"l-en/000000002-000000003.h5 and .*different values.*resid.post.last"):
        exchange.merge(tmp_path / "out.acts", [a, b])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.acts", "b.acts"]


def test_another_plan_is_refused_field_by_field(tmp_path):
    prompts, fewer = make_prompts(3), make_prompts(3, ("en",))
    plan = make_plan(prompts)
    a = part(tmp_path / "a.acts", plan, prompts, plan.blocks)
    changed = replace(plan, token_budget=128, model=replace(plan.model, weights_sha256="v" * 64))
    b = part(tmp_path / "b.acts", changed, prompts, [])
    with pytest.raises(BabelScopeError, match=r"model.weights_sha256: .*token_budget: .* has 64, .* has 128"):
        exchange.merge(tmp_path / "out.acts", [a, b])
    c = part(tmp_path / "c.acts", make_plan(fewer), fewer, [])
    with pytest.raises(BabelScopeError, match="another plan") as caught:
        exchange.merge(tmp_path / "out.acts", [a, c])
    assert "languages are part of what a plan is" in caught.value.hint
    packed = exchange.pack(a, tmp_path / "a.h5").path
    with pytest.raises(BabelScopeError, match="packed") as caught:
        exchange.merge(tmp_path / "out.acts", [packed])
    assert "unpack" in caught.value.hint


def test_a_damaged_shard_is_not_merged(tmp_path):
    prompts = make_prompts(3)
    plan = make_plan(prompts)
    a = part(tmp_path / "a.acts", plan, prompts, plan.blocks)
    shard = sorted(a.rglob("l-sw/*.h5"))[0]
    with h5py.File(shard) as file:
        at = file["embed.last/value"].id.get_offset()
    data = np.frombuffer(shard.read_bytes(), np.uint8).copy()
    data[at] ^= 4
    shard.chmod(0o644)
    shard.write_bytes(data.tobytes())
    with pytest.raises(BabelScopeError, match=r"l-sw/000000000-000000002.h5: damaged .*embed.last/value"):
        exchange.merge(tmp_path / "out.acts", [a])
    assert [p.name for p in tmp_path.iterdir()] == ["a.acts"]
