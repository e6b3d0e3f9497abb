"""Causal language model with the HF Trainer in the style of run_clm.py: HfArgumentParser, bf16, accumulation."""

from dataclasses import dataclass, field

import torch
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, HfArgumentParser, Trainer, TrainingArguments, set_seed


@dataclass
class ModelArguments:
    hidden: int = field(default=128, metadata={"help": "width"})
    layers: int = field(default=3, metadata={"help": "blocks"})
    gradient_checkpointing_blocks: bool = field(default=False)


@dataclass
class DataArguments:
    block_size: int = 128
    samples: int = 96


class Blocks(Dataset):
    def __init__(self, count, block):
        self.tokens = torch.randint(0, 1000, (count, block))

    def __len__(self):
        return len(self.tokens)

    def __getitem__(self, index):
        return {"input_ids": self.tokens[index], "labels": self.tokens[index]}


def metrics(prediction):
    predictions, labels = prediction
    return {"accuracy": float((predictions[:, :-1] == labels[:, 1:]).mean())}


def main():
    parser = HfArgumentParser((ModelArguments, DataArguments, TrainingArguments))
    model_args, data_args, training_args = parser.parse_args_into_dataclasses()
    set_seed(training_args.seed)
    config = GPT2Config(
        vocab_size=1000, n_embd=model_args.hidden, n_layer=model_args.layers, n_head=4, n_positions=data_args.block_size
    )
    model = GPT2LMHeadModel(config)
    if model_args.gradient_checkpointing_blocks:
        model.gradient_checkpointing_enable()
    trainer = Trainer(
        model=model,
        args=training_args,
        train_dataset=Blocks(data_args.samples, data_args.block_size),
        eval_dataset=Blocks(16, data_args.block_size),
        compute_metrics=metrics,
        preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1),
    )
    result = trainer.train()
    trainer.save_model()
    trainer.log_metrics("train", result.metrics)
    trainer.save_metrics("train", result.metrics)
    evaluated = trainer.evaluate()
    trainer.log_metrics("eval", evaluated)


if __name__ == "__main__":
    main()
