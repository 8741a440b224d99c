"""What can be typed, for each command: the last lines of its help. In this order they tell one story."""

from types import MappingProxyType

# Every line is run by a test, but for those that take minutes or need files of one's own.
EXAMPLES = MappingProxyType(
    {
        "": "demo",
        "ls": "ls metrics",
        "doctor": "doctor organism",
        "capture": "capture run.acts --model organism --prompts knowledge",
        "inspect": "inspect run.acts --values",
        "verify": "verify run.acts --full",
        "repair": "repair run.acts --dry-run",
        "analyze": "analyze run.acts --metric cs --site resid.post",
        "sweep": "sweep run.acts threshold=0.1:0.9:0.2 --languages en,sw",
        "probe": "probe run.acts --target gold-letter --site resid.post@3",
        "evaluate": "evaluate run.acts --source en",
        "report": "report run.acts run.acts.analysis --out again.html",
        "export": "export run.acts rows.npz --format numpy --site resid.post@3",
        "import": "import theirs.acts rows.npy --from npy",
        "pack": "pack run.acts --out run.h5",
        "unpack": "unpack run.h5 again.acts",
        "merge": "merge whole.acts part-1.acts part-2.acts",
        "classify": "classify tuned --prompts ruletaker --languages en,en-fr",
        "demo": "demo --out demo --limit 24",
        "data": "data show kfrd-arithmetic --languages en,zh",
        "data ls": "data ls",
        "data generate": "data generate knowledge facts.jsonl --items 40",
        "data show": "data show facts.jsonl --languages zh",
        "data audit": "data audit facts.jsonl --languages en",
        "data export": "data export ruletaker '{language}.jsonl' --layout ruletaker",
        "data pairs": "data pairs 'nli.{language}.jsonl' pairs.jsonl --languages fr-en",
        "data mix": "data mix 'text.{language}.txt' mixed.jsonl --unit sentence",
        "data mix-choice": "data mix-choice facts.jsonl mixed-choice.jsonl --languages en,sw",
        "data perturb": "data perturb facts.jsonl perturbed.jsonl --language en",
        "data translation": "data translation facts.jsonl translation.jsonl --pairs en-sw",
        "train": "train lora tuned --config small-lora-knowledge --dry-run",
        "train lora": "train lora tuned --config small-lora-knowledge",
        "train bitfit": "train bitfit tuned --config small-bitfit-ruletaker",
        "train full": "train full tuned --config small-mixed-full --dry-run",
        "train qcross": "train qcross tuned --config small-qcross",
        "train ablation": "train ablation grid --config ablation-small --dry-run",
        "train chain": "train chain ladder --config chain-ladder --dry-run",
        "train presets": "train presets",
        "train organism": "train organism mine --limit 1000",
        "train encoder-organism": "train encoder-organism mine --limit 1000",
    }
)
