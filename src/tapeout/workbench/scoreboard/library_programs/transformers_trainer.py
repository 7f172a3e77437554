"""transformers: Trainer with its defaults on a small language model."""

import tempfile

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

torch.manual_seed(1)
sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
model = LlamaForCausalLM(LlamaConfig(vocab_size=64, num_key_value_heads=1, **sizes))
rows = torch.randint(0, 64, (16, 12))
data = [{"input_ids": row, "labels": row} for row in rows]
with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(folder, max_steps=4, logging_steps=1, save_steps=4, report_to="none", seed=1)
    trainer = Trainer(model, arguments, train_dataset=data, eval_dataset=data[:4])
    print("device", trainer.args.device.type)
    trainer.train()
    for entry in trainer.state.log_history:
        if "loss" in entry:
            print("loss", entry["loss"])
    print("evaluation", trainer.evaluate()["eval_loss"])
