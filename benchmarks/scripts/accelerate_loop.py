"""Text classification in the style of accelerate's nlp_example.py: prepare, gather_for_metrics, accumulation."""

import argparse

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Dataset
from transformers import BertConfig, BertForSequenceClassification, get_linear_schedule_with_warmup, set_seed


class Pairs(Dataset):
    def __len__(self):
        return 256

    def __getitem__(self, index):
        length = 16 + index % 48
        return {"input_ids": torch.randint(0, 3000, (length,)).tolist(), "labels": index % 2}


def collate_fn(examples):
    longest = max(len(e["input_ids"]) for e in examples)
    longest += -longest % 8
    ids = torch.tensor([e["input_ids"] + [0] * (longest - len(e["input_ids"])) for e in examples])
    return {
        "input_ids": ids,
        "attention_mask": (ids != 0).long(),
        "labels": torch.tensor([e["labels"] for e in examples]),
    }


def training_function(config, args):
    accelerator = Accelerator(mixed_precision=args.mixed_precision, gradient_accumulation_steps=args.accumulation)
    set_seed(config["seed"])
    model = BertForSequenceClassification(
        BertConfig(vocab_size=3000, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024)
    )
    model = model.to(accelerator.device)
    optimizer = torch.optim.AdamW(params=model.parameters(), lr=config["lr"])
    train = DataLoader(Pairs(), shuffle=True, collate_fn=collate_fn, batch_size=args.batch_size, drop_last=True)
    val = DataLoader(Pairs(), shuffle=False, collate_fn=collate_fn, batch_size=32)
    schedule = get_linear_schedule_with_warmup(optimizer, 10, len(train) * config["num_epochs"])
    model, optimizer, train, val, schedule = accelerator.prepare(model, optimizer, train, val, schedule)
    for epoch in range(config["num_epochs"]):
        model.train()
        for batch in train:
            batch.to(accelerator.device) if hasattr(batch, "to") else None
            with accelerator.accumulate(model):
                loss = model(**batch).loss
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
        model.eval()
        correct = total = 0
        for batch in val:
            with torch.no_grad():
                outputs = model(**batch)
            predictions, references = accelerator.gather_for_metrics((outputs.logits.argmax(dim=-1), batch["labels"]))
            correct += (predictions == references).sum().item()
            total += len(references)
        accelerator.print(f"epoch {epoch}:", correct / total)
        accelerator.save_state("state")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mixed_precision", default=None, choices=["no", "fp16", "bf16"])
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--accumulation", type=int, default=1)
    training_function({"lr": 2e-5, "num_epochs": 3, "seed": 42}, parser.parse_args())


if __name__ == "__main__":
    main()
