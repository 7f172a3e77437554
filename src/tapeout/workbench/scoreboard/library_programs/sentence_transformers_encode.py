"""sentence-transformers: embeddings of sentences by a small BERT."""

import sys
import tempfile
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer, models, util
from transformers import BertConfig, BertModel, BertTokenizer

device = sys.argv[1]
torch.manual_seed(1)
sentences = ["the cat sat", "a dog sat on the mat", "the mat"]
with tempfile.TemporaryDirectory() as folder:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "a", "dog", "on", "mat"]
    Path(folder, "vocab.txt").write_text("\n".join(words))
    BertTokenizer(str(Path(folder, "vocab.txt"))).save_pretrained(folder)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(folder)
    transformer = models.Transformer(folder)
    pooling = models.Pooling(transformer.get_word_embedding_dimension())
    model = SentenceTransformer(modules=[transformer, pooling], device=device)
print("device", model.device.type)
found = model.encode(sentences, convert_to_tensor=True, show_progress_bar=False)
for row in util.cos_sim(found, found).flatten().tolist():
    print("similarity", row)
