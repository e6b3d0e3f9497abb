"""Fine-tuning by LoRA with peft in a loop of one's own: frozen bf16 base, gradient checkpointing, adapter saved."""

import argparse

import torch
from peft import LoraConfig, get_peft_model
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM, get_cosine_schedule_with_warmup

parser = argparse.ArgumentParser()
parser.add_argument("--per_device_batch", type=int, default=4)
parser.add_argument("--seq_len", type=int, default=256)
parser.add_argument("--rank", type=int, default=16)
parser.add_argument("--steps", type=int, default=500)
args = parser.parse_args()

config = LlamaConfig(
    vocab_size=8000, hidden_size=512, intermediate_size=1376, num_hidden_layers=6, num_attention_heads=8,
    num_key_value_heads=8,
)  # fmt: skip
model = LlamaForCausalLM(config).to(torch.bfloat16).cuda()
model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
model.enable_input_require_grads()
lora = LoraConfig(r=args.rank, lora_alpha=32, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
model = get_peft_model(model, lora)
model.print_trainable_parameters()
optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=2e-4)
scheduler = get_cosine_schedule_with_warmup(optimizer, 10, args.steps)
data = [torch.randint(0, 8000, (args.seq_len,)) for _ in range(64)]
model.train()
step = 0
while step < args.steps:
    for batch in DataLoader(data, batch_size=args.per_device_batch, shuffle=True, drop_last=True):
        batch = batch.cuda()
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        step += 1
        if step % 10 == 0:
            print(step, float(loss))
model.save_pretrained("adapter")
