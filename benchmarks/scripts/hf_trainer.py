"""A causal language model with the Hugging Face Trainer: HfArgumentParser-like arguments, evaluation, saving."""

import sys

import torch
from torch.utils.data import Dataset
from transformers import (
    DataCollatorForLanguageModeling,  # noqa: F401  # as such scripts have it
    GPT2Config,
    GPT2LMHeadModel,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
    default_data_collator,
    set_seed,
)


class Tokens(Dataset):
    def __init__(self, samples, length, vocabulary):
        self.ids = torch.randint(0, vocabulary, (samples, length))

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        ids = self.ids[index]
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}


def main():
    parser = HfArgumentParser(TrainingArguments)
    defaults = ["--output_dir", "out", "--report_to", "none", "--num_train_epochs", "2", "--eval_strategy", "epoch"]
    (args,) = parser.parse_args_into_dataclasses(defaults + sys.argv[1:])
    set_seed(args.seed)
    config = GPT2Config(vocab_size=5000, n_positions=256, n_embd=256, n_layer=4, n_head=4)
    model = GPT2LMHeadModel(config)
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=Tokens(256, 128, 5000),
        eval_dataset=Tokens(64, 128, 5000),
        data_collator=default_data_collator,
    )
    result = trainer.train()
    trainer.save_model()
    trainer.log_metrics("train", result.metrics)
    print(trainer.evaluate())


if __name__ == "__main__":
    main()
