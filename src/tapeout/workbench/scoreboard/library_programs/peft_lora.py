"""PEFT: LoRA adapters on a small language model, trained, merged."""

import sys

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

device = sys.argv[1]
torch.manual_seed(1)
sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
model = LlamaForCausalLM(LlamaConfig(vocab_size=64, **sizes))
model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], lora_dropout=0.0)).to(device)
print("device", model.device.type)
rows = torch.randint(0, 64, (4, 12)).to(device)
optimizer = torch.optim.AdamW((each for each in model.parameters() if each.requires_grad), lr=0.01)
for _ in range(3):
    loss = model(input_ids=rows, labels=rows).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print("loss", loss.item())
print("merged", model.merge_and_unload()(input_ids=rows).logits.double().square().mean().item())
