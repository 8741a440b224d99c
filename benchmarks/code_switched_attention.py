"""What cross-lingual queries do to attention: the embedded encoder before and after they are trained.

Trains queries on `ruletaker` in English and French, captures attention over 40 test items in both languages
and in both at once, and prints the claims of the recipe `code-switched-attention` for the encoder and for the encoder
with its queries. About three minutes on two cores.
"""

import tempfile
from pathlib import Path

import babelscope as bs
from babelscope.workflows import model_path

PAIRS = ["en-fr", "fr-en"]


def main() -> None:
    """Print both tables."""
    encoder = str(model_path("encoder-organism"))
    prompts = bs.generate("ruletaker", items=40, max_depth=0, languages=["en", "fr", *PAIRS])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        training = {
            "method": "qcross", "model": encoder,
            "data": {
                "prompts": ["ruletaker"], "parameters": {"items": 5000, "max_depth": 0}, "languages": PAIRS,
                "parallel": True,
            },
            "optimization": {"learning_rate": 2e-3, "batch": 8, "max_length": 512, "epochs": 3},
        }  # fmt: skip
        queries = str(bs.train(training, folder / "queries"))
        for title, model, sites in (
            ("encoder", encoder, ["attn.mass"]),
            ("encoder with trained queries", queries, ["attn.mass", "attn.crossed"]),
        ):
            store = bs.capture(folder / f"{len(sites)}.acts", model=model, prompts=prompts, sites=sites)
            table = bs.analyze(store, recipes="code_switched_attention", by=None)["code_switched_attention"].table
            print(title)
            columns = ["claim", "language_a", "language_b", "n", "estimate", "low", "high", "null", "q", "verdict"]
            print(table[columns].to_string(index=False, float_format="%.3f"))


if __name__ == "__main__":
    main()
