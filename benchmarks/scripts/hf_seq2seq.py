#!/usr/bin/env python
"""Fine-tuning the library models for summarization, after the example of transformers.

python hf_seq2seq.py --output_dir out --do_train --do_eval --predict_with_generate --per_device_train_batch_size 8
"""

import logging
import sys
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import (
    EvalPrediction,
    HfArgumentParser,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
    set_seed,
)

logger = logging.getLogger(__name__)


@dataclass
class ModelArguments:
    """Arguments pertaining to which model we are going to train."""

    d_model: int = field(default=256, metadata={"help": "Width of the encoder and of the decoder."})
    num_layers: int = field(default=4)
    dropout_rate: float = field(default=0.1)


@dataclass
class DataTrainingArguments:
    """Arguments pertaining to what data we are going to input our model for training and eval."""

    max_source_length: int = field(default=256, metadata={"help": "Longer sources are cut."})
    max_target_length: int = field(default=64)
    val_max_target_length: int | None = field(default=None)
    max_train_samples: int | None = field(default=400)
    max_eval_samples: int | None = field(default=32)
    ignore_pad_token_for_loss: bool = field(default=True)

    def __post_init__(self):
        if self.val_max_target_length is None:
            self.val_max_target_length = self.max_target_length


class Summaries(Dataset):
    def __init__(self, count, args, vocab_size, seed):
        rng = np.random.default_rng(seed)
        self.rows = []
        for _ in range(count):
            source = rng.integers(2, vocab_size, size=rng.integers(40, args.max_source_length)).tolist()
            target = source[:: max(1, len(source) // args.max_target_length)][: args.max_target_length - 1]
            self.rows.append({"input_ids": source + [1], "labels": target + [1]})

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


class Collator:
    """Pads each batch to its longest source and target, both to a multiple of 8."""

    def __init__(self, model, pad_token_id, label_pad_token_id, pad_to_multiple_of=8):
        self.model, self.pad, self.label_pad, self.multiple = (
            model,
            pad_token_id,
            label_pad_token_id,
            pad_to_multiple_of,
        )

    def _padded(self, rows, value):
        longest = max(len(row) for row in rows)
        longest = (longest + self.multiple - 1) // self.multiple * self.multiple
        return torch.tensor([row + [value] * (longest - len(row)) for row in rows])

    def __call__(self, features):
        input_ids = self._padded([f["input_ids"] for f in features], self.pad)
        labels = self._padded([f["labels"] for f in features], self.label_pad)
        decoder_input_ids = self.model.prepare_decoder_input_ids_from_labels(labels=labels)
        return {
            "input_ids": input_ids,
            "attention_mask": input_ids.ne(self.pad).long(),
            "labels": labels,
            "decoder_input_ids": decoder_input_ids,
        }


def main():
    parser = HfArgumentParser((ModelArguments, DataTrainingArguments, Seq2SeqTrainingArguments))
    model_args, data_args, training_args = parser.parse_args_into_dataclasses()
    logging.basicConfig(
        format="%(asctime)s - %(levelname)s - %(name)s - %(message)s",
        datefmt="%m/%d/%Y %H:%M:%S",
        handlers=[logging.StreamHandler(sys.stdout)],
    )
    logger.setLevel(training_args.get_process_log_level())
    logger.warning(
        f"Process rank: {training_args.local_rank}, device: {training_args.device}, n_gpu: {training_args.n_gpu}, "
        f"16-bits training: {training_args.fp16}"
    )
    set_seed(training_args.seed)

    config = T5Config(
        vocab_size=4096,
        d_model=model_args.d_model,
        d_kv=model_args.d_model // 4,
        d_ff=model_args.d_model * 4,
        num_layers=model_args.num_layers,
        num_heads=4,
        dropout_rate=model_args.dropout_rate,
        decoder_start_token_id=0,
    )
    model = T5ForConditionalGeneration(config)
    if model.config.decoder_start_token_id is None:
        raise ValueError("Make sure that `config.decoder_start_token_id` is correctly defined")

    label_pad = -100 if data_args.ignore_pad_token_for_loss else config.pad_token_id
    train_dataset = Summaries(data_args.max_train_samples, data_args, config.vocab_size, seed=1)
    eval_dataset = Summaries(data_args.max_eval_samples, data_args, config.vocab_size, seed=2)

    def compute_metrics(eval_preds: EvalPrediction):
        preds, labels = eval_preds.predictions, eval_preds.label_ids
        if isinstance(preds, tuple):
            preds = preds[0]
        preds = np.where(preds != -100, preds, config.pad_token_id)
        labels = np.where(labels != -100, labels, config.pad_token_id)
        overlap = [len(set(p.tolist()) & set(l.tolist())) / max(1, len(set(l.tolist()))) for p, l in zip(preds, labels)]
        gen_len = np.mean([np.count_nonzero(pred != config.pad_token_id) for pred in preds])
        return {"overlap": round(float(np.mean(overlap)), 4), "gen_len": float(gen_len)}

    training_args.generation_max_length = (
        training_args.generation_max_length
        if training_args.generation_max_length is not None
        else data_args.val_max_target_length
    )
    trainer = Seq2SeqTrainer(
        model=model,
        args=training_args,
        train_dataset=train_dataset if training_args.do_train else None,
        eval_dataset=eval_dataset if training_args.do_eval else None,
        data_collator=Collator(model, config.pad_token_id, label_pad),
        compute_metrics=compute_metrics if training_args.predict_with_generate else None,
    )

    if training_args.do_train:
        train_result = trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)
        trainer.save_model()
        metrics = train_result.metrics
        metrics["train_samples"] = len(train_dataset)
        trainer.log_metrics("train", metrics)
        trainer.save_metrics("train", metrics)
        trainer.save_state()

    if training_args.do_eval:
        logger.info("*** Evaluate ***")
        metrics = trainer.evaluate(metric_key_prefix="eval")
        metrics["eval_samples"] = len(eval_dataset)
        trainer.log_metrics("eval", metrics)
        trainer.save_metrics("eval", metrics)


if __name__ == "__main__":
    main()
