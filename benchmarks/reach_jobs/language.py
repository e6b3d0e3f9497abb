"""Language models of Hugging Face, called with keywords, that return their loss."""

import torch
import transformers as hf

from .styles import case, own, tokens

SMALL = {"vocab_size": 512, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
DEEP = {**SMALL, "intermediate_size": 128}
EAGER = {"attn_implementation": "eager"}
GROUPED = {**DEEP, "num_key_value_heads": 2, "head_dim": 16}


def text(n):
    ids = tokens(n)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}


def padded(n):
    ids = tokens(n)
    mask = torch.arange(32) < torch.randint(8, 33, (n, 1))
    return {"input_ids": ids, "attention_mask": mask.long(), "labels": ids.masked_fill(~mask, -100)}


def causal(config, batch=text):
    return own(lambda: hf.AutoModelForCausalLM.from_config(config, **EAGER), batch)


def masked(config, batch=padded):
    return own(lambda: hf.AutoModelForMaskedLM.from_config(config, **EAGER), batch)


@case(2)
def gpt2_padded():
    return causal(hf.GPT2Config(vocab_size=512, n_embd=64, n_layer=2, n_head=4), padded)


@case(2)
def opt():
    return causal(hf.OPTConfig(**SMALL, ffn_dim=128, word_embed_proj_dim=64, max_position_embeddings=64), padded)


@case(2)
def bloom():
    return causal(hf.BloomConfig(vocab_size=512, hidden_size=64, n_layer=2, n_head=4), padded)


@case(2)
def falcon():
    return causal(hf.FalconConfig(**SMALL))


@case(2)
def gptj():
    return causal(hf.GPTJConfig(vocab_size=512, n_embd=64, n_layer=2, n_head=4, rotary_dim=8))


@case(2)
def gpt_neo():
    return causal(
        hf.GPTNeoConfig(
            vocab_size=512, hidden_size=64, num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]]
        )
    )


@case(2)
def phi3():
    return causal(hf.Phi3Config(**DEEP, pad_token_id=0))


@case(2)
def qwen3():
    return causal(hf.Qwen3Config(**GROUPED), padded)


@case(2)
def gemma2():
    return causal(hf.Gemma2Config(**GROUPED))


@case(2)
def gemma3_text():
    return causal(hf.Gemma3TextConfig(**GROUPED))


@case(2)
def olmo2():
    return causal(hf.Olmo2Config(**DEEP))


@case(2)
def mixtral_experts():
    return causal(hf.MixtralConfig(**GROUPED, num_local_experts=4, num_experts_per_tok=2))


@case(2)
def qwen2_experts():
    return causal(
        hf.Qwen2MoeConfig(
            **DEEP,
            num_key_value_heads=2,
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=32,
            shared_expert_intermediate_size=64,
            output_router_logits=True,
        )
    )


@case(2)
def stablelm():
    return causal(hf.StableLmConfig(**DEEP, num_key_value_heads=4))


@case(2)
def starcoder2():
    return causal(hf.Starcoder2Config(**DEEP))


@case(2)
def granite():
    return causal(hf.GraniteConfig(**DEEP))


@case(2)
def deepseek_v3():
    return causal(
        hf.DeepseekV3Config(
            **DEEP,
            num_key_value_heads=4,
            moe_intermediate_size=32,
            n_routed_experts=4,
            num_experts_per_tok=2,
            n_group=2,
            topk_group=1,
            first_k_dense_replace=1,
            q_lora_rank=16,
            kv_lora_rank=16,
            qk_rope_head_dim=8,
            qk_nope_head_dim=8,
            v_head_dim=16,
        )
    )


@case(2)
def mamba2():
    return own(
        lambda: hf.Mamba2ForCausalLM(
            hf.Mamba2Config(
                vocab_size=512,
                hidden_size=64,
                num_hidden_layers=2,
                state_size=16,
                num_heads=8,
                head_dim=16,
                n_groups=1,
                chunk_size=16,
            )
        ),
        lambda n: {"input_ids": tokens(n), "labels": tokens(n)},
    )


@case(2)
def xlnet():
    return own(
        lambda: hf.XLNetLMHeadModel(hf.XLNetConfig(vocab_size=512, d_model=64, n_layer=2, n_head=4, d_inner=128)),
        lambda n: {"input_ids": tokens(n), "labels": tokens(n)},
    )


@case(2)
def llama_checkpointed_padded():
    def model():
        network = hf.LlamaForCausalLM(hf.LlamaConfig(**DEEP, **EAGER, use_cache=False))
        network.gradient_checkpointing_enable()
        return network

    return own(model, padded)


@case(2)
def llama_lora():
    def model():
        import peft

        network = hf.LlamaForCausalLM(hf.LlamaConfig(**DEEP, **EAGER))
        return peft.get_peft_model(
            network, peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        )

    return own(model, padded)


@case(2)
def llama_dora_checkpointed():
    def model():
        import peft

        network = hf.LlamaForCausalLM(hf.LlamaConfig(**DEEP, **EAGER, use_cache=False))
        network.gradient_checkpointing_enable()
        network.enable_input_require_grads()
        return peft.get_peft_model(network, peft.LoraConfig(r=4, use_dora=True, target_modules="all-linear"))

    return own(model, text)


@case(2)
def bert_prefix_tuning():
    def model():
        import peft

        network = hf.BertForSequenceClassification(hf.BertConfig(**DEEP, **EAGER, num_labels=3))
        return peft.get_peft_model(
            network,
            peft.IA3Config(
                target_modules=["key", "value", "output.dense"],
                feedforward_modules=["output.dense"],
                task_type="SEQ_CLS",
            ),
        )

    return own(
        model, lambda n: {**{k: v for k, v in padded(n).items() if k != "labels"}, "labels": torch.randint(3, (n,))}
    )


@case(2)
def albert():
    return masked(hf.AlbertConfig(**DEEP, embedding_size=32))


@case(2)
def distilbert():
    return masked(hf.DistilBertConfig(vocab_size=512, dim=64, n_layers=2, n_heads=4, hidden_dim=128))


@case(2)
def deberta_v2():
    return masked(hf.DebertaV2Config(**DEEP, relative_attention=True, pos_att_type=["c2p", "p2c"], position_buckets=16))


@case(2)
def longformer():
    return own(
        lambda: hf.LongformerForMaskedLM(hf.LongformerConfig(**DEEP, attention_window=16, max_position_embeddings=80)),
        padded,
    )


@case(2)
def big_bird():
    return own(
        lambda: hf.BigBirdForMaskedLM(
            hf.BigBirdConfig(
                **DEEP, attention_type="block_sparse", block_size=4, num_random_blocks=1, max_position_embeddings=128
            )
        ),
        lambda n: {"input_ids": tokens(n, 96), "labels": tokens(n, 96)},
    )


@case(2)
def funnel():
    return own(
        lambda: hf.FunnelForMaskedLM(
            hf.FunnelConfig(vocab_size=512, d_model=64, n_head=4, d_head=16, d_inner=128, block_sizes=[1, 1])
        ),
        padded,
    )


@case(2)
def roformer():
    return masked(hf.RoFormerConfig(**DEEP))


@case(2)
def modernbert():
    return masked(hf.ModernBertConfig(**DEEP, pad_token_id=0))


@case(2)
def bert_question_answering():
    def batch(n):
        return {
            **{k: v for k, v in padded(n).items() if k != "labels"},
            "start_positions": torch.randint(30, (n,)),
            "end_positions": torch.randint(30, (n,)),
        }

    return own(lambda: hf.BertForQuestionAnswering(hf.BertConfig(**DEEP, **EAGER)), batch)


@case(2)
def roberta_tokens():
    def batch(n):
        made = padded(n)
        return {**made, "labels": torch.where(made["labels"] == -100, -100, made["labels"] % 7)}

    return own(lambda: hf.RobertaForTokenClassification(hf.RobertaConfig(**DEEP, **EAGER, num_labels=7)), batch)


@case(2)
def bert_multiple_choice():
    def batch(n):
        ids = torch.randint(5, 500, (n, 4, 16))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.randint(4, (n,))}

    return own(lambda: hf.BertForMultipleChoice(hf.BertConfig(**DEEP, **EAGER)), batch)


def translated(n):
    return {"input_ids": tokens(n), "attention_mask": torch.ones(n, 32, dtype=torch.long), "labels": tokens(n, 24)}


def encoder_decoder(config):
    return own(lambda: hf.AutoModelForSeq2SeqLM.from_config(config, **EAGER), translated)


BART = {
    "vocab_size": 512,
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "pad_token_id": 1,
    "decoder_start_token_id": 2,
}


@case(2)
def t5():
    return encoder_decoder(
        hf.T5Config(
            vocab_size=512,
            d_model=64,
            d_kv=16,
            d_ff=128,
            num_layers=2,
            num_heads=4,
            decoder_start_token_id=0,
            pad_token_id=0,
        )
    )


@case(2)
def bart():
    return encoder_decoder(hf.BartConfig(**BART))


@case(2)
def pegasus():
    return encoder_decoder(hf.PegasusConfig(**BART))


@case(2)
def m2m100():
    return encoder_decoder(hf.M2M100Config(**BART))


@case(2)
def marian():
    return encoder_decoder(hf.MarianConfig(**BART))


@case(2)
def preference_pairs():
    """Direct preference optimization, with a frozen reference."""

    class Preferring(torch.nn.Module):
        def __init__(self):
            super().__init__()
            config = hf.LlamaConfig(**DEEP, **EAGER)
            self.policy, self.reference = hf.LlamaForCausalLM(config), hf.LlamaForCausalLM(config).requires_grad_(False)

        def score(self, network, ids):
            chances = network(input_ids=ids).logits[:, :-1].log_softmax(-1)
            return chances.gather(-1, ids[:, 1:, None]).squeeze(-1).sum(-1)

        def forward(self, chosen, rejected):
            both = torch.cat([chosen, rejected])
            mine = self.score(self.policy, both)
            with torch.no_grad():
                theirs = self.score(self.reference, both)
            better, worse = (mine - theirs).chunk(2)
            return -torch.nn.functional.logsigmoid(0.1 * (better - worse)).mean()

    return own(Preferring, lambda n: {"chosen": tokens(n), "rejected": tokens(n)})
