"""transformers: pipeline(device=...) and generate of a small language model."""

import sys

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, pipeline

device = sys.argv[1]
torch.manual_seed(1)
TEXT = "<pad> <end> the cat sat on a mat and saw dog"
words = {word: number for number, word in enumerate(TEXT.split())}
raw = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
raw.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<end>")
sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
model = LlamaForCausalLM(LlamaConfig(vocab_size=len(words), **sizes))
writer = pipeline("text-generation", model=model, tokenizer=tokenizer, device=device)
print("device", writer.device.type)
for prompt in ("the cat", "a dog saw the"):
    text = writer(prompt, max_new_tokens=6, do_sample=False, return_full_text=False)[0]["generated_text"]
    for word in text.split():
        print("token", float(words.get(word, -1)))
    print("length", float(len(text)))
