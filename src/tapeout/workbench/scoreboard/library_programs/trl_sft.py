"""TRL: supervised fine-tuning of a small language model on text."""

import tempfile

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

torch.manual_seed(1)
TEXT = "<pad> <end> the cat sat on a mat and saw dog"
words = {word: number for number, word in enumerate(TEXT.split())}
raw = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
raw.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<end>")
sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
model = LlamaForCausalLM(LlamaConfig(vocab_size=len(words), **sizes))
data = Dataset.from_dict({"text": ["the cat sat on a mat", "a dog saw the cat and sat"] * 8})
with tempfile.TemporaryDirectory() as folder:
    arguments = SFTConfig(
        folder, max_steps=3, logging_steps=1, report_to="none", seed=1, max_length=16, per_device_train_batch_size=4,
        save_strategy="no", bf16=False,
    )  # fmt: skip
    trainer = SFTTrainer(model, arguments, train_dataset=data, processing_class=tokenizer)
    print("device", trainer.args.device.type)
    trainer.train()
    for entry in trainer.state.log_history:
        if "loss" in entry:
            print("loss", entry["loss"])
