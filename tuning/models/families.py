"""The families of models: one record for each `model_type` of transformers.

A record says how the layers are named and counted, what a model of the family can be trained for, and how it behaves
where that decides a refusal or a byte of the memory estimate. Each claim is proven by a test on a tiny random model of
the family. A kind without a record is read by the usual names, counted closely, and trained for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """How `transformers` writes one kind of model, and what it can do.

    A layer is `name:in>out`, with `+` where it has a bias; h hidden, q all query heads, k all key heads, i inner,
    f query, key and value in one, g gate and up in one.
    """

    # layers
    attention: str
    mlp: str
    exact: bool = True
    """Whether names and counts are those of `transformers`, not the usual pattern."""
    gated: bool = True
    block_norms: int = 2
    """Hidden-wide vectors in one block's norms: one for each RMS norm, two for each LayerNorm."""
    head_norms: str = ""
    """Norms on queries and keys: `d d` for one head's width each, `q k` for all heads'."""
    end_norms: int = 1
    tied: bool = False
    """Whether input and output embeddings are one matrix where config.json does not say."""
    positions: bool = False
    """Whether positions are learned, as a matrix of max_positions x hidden."""
    position_offset: int = 0
    """How many rows of the position embeddings no token can use."""
    head_bias: bool = False
    transposed: bool = False
    """Whether linear layers store their matrix as in x out (the library's Conv1D)."""
    encoder: bool = False
    segments: bool = False
    """Whether there are segment embeddings, as many as type_vocab_size says."""
    pooler: bool = False
    """Whether a hidden-wide layer stands between body and classifier."""
    classifier: str = "score"
    """`score` a matrix; `bias` a matrix with a bias; `dense` a hidden-wide layer before it."""
    keys_and_values: tuple[str, ...] | None = None
    """Names of the layers whose outputs IA3 scales; None for all that give keys or values, also beside queries."""

    # tasks
    writes: bool = False
    """Whether it is proven that tokens see only those before them, and that padding changes nothing. A kind without it
    never writes text: being in the library's table is no proof, for that has encoders too."""
    writes_if_decoder: bool = False
    """Whether it is an encoder that becomes a decoder where config.json has `is_decoder: true`."""
    classifies: bool = False
    """Whether the classes of a text do not depend on padding; kinds without it read the padding too."""
    supports_packing: bool = False
    """Whether restarting positions separate packed rows; kinds without it mix them silently."""

    # positions of a text
    positions_from_padding: bool = False
    """Whether the first token has the position after the padding token's id, so that no token uses the earlier ones."""
    lost_positions: int = 0
    """How many positions come before the first token's, in kinds in which that is a constant above 0."""

    # memory
    half_cache: bool = False
    """Whether keys and values of generated text are stored in 16 bits under autocast, and not in 32."""
    default_dropout: bool = True
    """Whether attention has dropout where config.json does not say, in families with learned positions."""
    stepwise_activation: bool = False
    """Whether the activation is computed in several operations, each of whose results is stored; other kinds do so
    where config.json names such an activation."""

    @property
    def layers(self) -> list[tuple[str, str, str]]:
        """(name, in, out) of the linear layers of one block, with sizes as letters (see `Family`)."""
        parts = [part.removesuffix("+").split(":") for part in f"{self.attention} {self.mlp}".split()]
        return [(name, ends[0], ends[2]) for name, ends in parts]

    @property
    def scaled_by_ia3(self) -> tuple[str, ...]:
        """Names of the attention layers that IA3 scales: those that give keys or values."""
        if self.keys_and_values is not None:
            return self.keys_and_values
        return tuple(name for name, _, out in self.layers if out in ("k", "f"))


_SPLIT = "q_proj:h>q k_proj:h>k v_proj:h>k o_proj:q>h"
_BIASED = "q_proj:h>q+ k_proj:h>k+ v_proj:h>k+ "
_GATED = "gate_proj:h>i up_proj:h>i down_proj:i>h"
_LLAMA = Family(attention=_SPLIT, mlp=_GATED)
_QWEN2 = Family(attention=_BIASED + "o_proj:q>h", mlp=_GATED)
_ROBERTA = Family(
    attention="query:h>q+ key:h>k+ value:h>k+ attention.output.dense:q>h+",
    mlp="intermediate.dense:h>i+ output.dense:i>h+",
    gated=False,
    block_norms=4,
    end_norms=2,
    tied=True,
    positions=True,
    position_offset=2,
    encoder=True,
    segments=True,
    classifier="dense",
)
_USUAL = Family(
    exact=False,
    attention=_BIASED + "o_proj:q>h+",
    mlp="up:h>i+ down:i>h+",
    gated=False,
    block_norms=4,
    end_norms=2,
    tied=True,
    positions=True,
)
"""The assumption about the layers of kinds without a record."""
FAMILIES: dict[str, Family] = {
    "llama": replace(_LLAMA, writes=True, classifies=True, supports_packing=True),
    "mistral": replace(_LLAMA, writes=True, classifies=True, supports_packing=True),
    "granite": replace(_LLAMA, writes=True, supports_packing=True),
    "smollm3": replace(_LLAMA, tied=True, writes=True, classifies=True, supports_packing=True),
    "gemma": replace(_LLAMA, tied=True, writes=True, classifies=True, supports_packing=True),
    "gemma2": replace(_LLAMA, tied=True, block_norms=4, writes=True, classifies=True),
    "gemma3_text": replace(
        _LLAMA, tied=True, block_norms=4, head_norms="d d", writes=True, classifies=True, supports_packing=True
    ),
    "qwen2": replace(_QWEN2, writes=True, classifies=True, supports_packing=True),
    "seed_oss": replace(_QWEN2, writes=True, classifies=True, supports_packing=True),
    "qwen3": replace(_LLAMA, head_norms="d d", writes=True, classifies=True, supports_packing=True),
    "exaone4": replace(_LLAMA, head_norms="d d", writes=True, classifies=True, supports_packing=True),
    "olmo": replace(
        _LLAMA, block_norms=0, end_norms=0, writes=True, classifies=True, supports_packing=True, half_cache=True
    ),
    "olmo2": replace(_LLAMA, head_norms="q k", writes=True, classifies=True, supports_packing=True, half_cache=True),
    "olmo3": replace(_LLAMA, head_norms="q k", writes=True, classifies=True, supports_packing=True, half_cache=True),
    "ernie4_5": replace(_LLAMA, tied=True, writes=True, supports_packing=True, half_cache=True),
    "cohere": replace(_LLAMA, tied=True, block_norms=1, writes=True, supports_packing=True, half_cache=True),
    "helium": replace(_LLAMA, writes=True, classifies=True, supports_packing=True),
    "stablelm": replace(_LLAMA, block_norms=4, end_norms=2, writes=True, classifies=True, supports_packing=True),
    "arcee": replace(
        _LLAMA, mlp="up_proj:h>i down_proj:i>h", gated=False, writes=True, classifies=True, supports_packing=True
    ),
    "nemotron": replace(
        _LLAMA,
        mlp="up_proj:h>i down_proj:i>h",
        gated=False,
        block_norms=4,
        end_norms=2,
        writes=True,
        classifies=True,
        supports_packing=True,
    ),
    "glm": replace(_QWEN2, mlp="gate_up_proj:h>g down_proj:i>h", writes=True, classifies=True, supports_packing=True),
    "starcoder2": Family(
        attention=_BIASED + "o_proj:q>h+",
        mlp="c_fc:h>i+ mlp.c_proj:i>h+",
        gated=False,
        block_norms=4,
        end_norms=2,
        tied=True,
        writes=True,
        classifies=True,
        supports_packing=True,
    ),
    "phi3": Family(
        attention="qkv_proj:h>f o_proj:q>h",
        mlp="gate_up_proj:h>g down_proj:i>h",
        writes=True,
        classifies=True,
        supports_packing=True,
    ),
    "phi": Family(
        attention=_BIASED + "dense:q>h+",
        mlp="fc1:h>i+ fc2:i>h+",
        gated=False,
        end_norms=2,
        head_bias=True,
        writes=True,
        classifies=True,
        supports_packing=True,
    ),
    "gpt2": Family(
        attention="c_attn:h>f+ attn.c_proj:q>h+",
        mlp="c_fc:h>i+ mlp.c_proj:i>h+",
        gated=False,
        block_norms=4,
        end_norms=2,
        tied=True,
        positions=True,
        transposed=True,
        writes=True,
        classifies=True,
        supports_packing=True,
        half_cache=True,
        stepwise_activation=True,
    ),
    "gpt_neox": Family(
        attention="query_key_value:h>f+ attention.dense:q>h+",
        mlp="dense_h_to_4h:h>i+ dense_4h_to_h:i>h+",
        gated=False,
        block_norms=4,
        end_norms=2,
        writes=True,
        classifies=True,
        supports_packing=True,
    ),
    "bert": replace(
        _ROBERTA, position_offset=0, pooler=True, classifier="bias", writes_if_decoder=True, classifies=True
    ),
    "roberta": replace(_ROBERTA, writes_if_decoder=True, classifies=True, positions_from_padding=True),
    "xlm-roberta": replace(_ROBERTA, writes_if_decoder=True, classifies=True, positions_from_padding=True),
    "camembert": replace(_ROBERTA, writes_if_decoder=True, classifies=True, positions_from_padding=True),
    "modernbert": Family(  # the first block lacks one norm, which is taken off the two at the ends
        attention="attn.Wqkv:h>f attn.Wo:q>h",
        mlp="mlp.Wi:h>g mlp.Wo:i>h",
        tied=True,
        encoder=True,
        pooler=True,
        classifier="bias",
        classifies=True,
        keys_and_values=(),  # IA3 leaves its attention as it is
    ),
    "distilbert": replace(
        _ROBERTA,
        position_offset=0,
        segments=False,
        mlp="lin1:h>i+ lin2:i>h+",
        attention="q_lin:h>q+ k_lin:h>k+ v_lin:h>k+ out_lin:q>h+",
        classifies=True,
    ),
    # kinds whose layers are counted by the usual pattern
    "albert": replace(_USUAL, classifies=True),
    "apertus": replace(_USUAL, writes=True, supports_packing=True),
    "bert-generation": replace(_USUAL, writes_if_decoder=True),
    "big_bird": replace(_USUAL, writes_if_decoder=True, classifies=True),
    "biogpt": replace(_USUAL, writes=True, classifies=True),
    "bitnet": replace(_USUAL, writes=True),
    "bloom": replace(_USUAL, writes=True, classifies=True),
    "codegen": replace(_USUAL, writes=True),
    "cohere2": replace(_USUAL, writes=True),
    "ctrl": replace(_USUAL, writes=True, classifies=True),
    "cwm": replace(_USUAL, writes=True),
    "data2vec-text": replace(_USUAL, writes_if_decoder=True, classifies=True, positions_from_padding=True),
    "deberta": replace(_USUAL, classifies=True),
    "deberta-v2": replace(_USUAL, classifies=True),
    "diffllama": replace(_USUAL, writes=True, classifies=True),
    "electra": replace(_USUAL, writes_if_decoder=True, classifies=True),
    "ernie": replace(_USUAL, writes_if_decoder=True, classifies=True),
    "esm": replace(_USUAL, positions_from_padding=True),
    "eurobert": replace(_USUAL, classifies=True),
    "falcon": replace(_USUAL, writes=True, classifies=True),
    "falcon_h1": replace(_USUAL, writes=True),
    "flaubert": replace(_USUAL, classifies=True),
    "gemma4_unified_text": replace(_USUAL, writes=True),
    "glm4": replace(_USUAL, writes=True, classifies=True),
    "gpt-sw3": replace(_USUAL, writes=True, classifies=True),
    "gpt_bigcode": replace(_USUAL, writes=True, classifies=True, supports_packing=True),
    "gpt_neo": replace(_USUAL, writes=True, classifies=True),
    "gpt_neox_japanese": replace(_USUAL, writes=True),
    "gptj": replace(_USUAL, writes=True, classifies=True),
    "granite_swa": replace(_USUAL, writes=True),
    "granitemoe": replace(_USUAL, supports_packing=True),
    "gte": replace(_USUAL, classifies=True),
    "hrm_text": replace(_USUAL, writes=True),
    "hunyuan_v1_dense": replace(_USUAL, writes=True, classifies=True, supports_packing=True),
    "hyperclovax": replace(_USUAL, writes=True),
    "ibert": replace(_USUAL, classifies=True, positions_from_padding=True),
    "internlm3": replace(_USUAL, writes=True),
    "iquestcoder": replace(_USUAL, writes=True),
    "jais2": replace(_USUAL, writes=True),
    "jina_embeddings_v3": replace(_USUAL, classifies=True),
    "lfm2": replace(_USUAL, writes=True),
    "lfm3": replace(_USUAL, writes=True),
    "lilt": replace(_USUAL, positions_from_padding=True),
    "longformer": replace(_USUAL, classifies=True, positions_from_padding=True),
    "luke": replace(_USUAL, positions_from_padding=True),
    "megatron-bert": replace(_USUAL, writes_if_decoder=True, classifies=True),
    "ministral": replace(_USUAL, writes=True, classifies=True),
    "ministral3": replace(_USUAL, writes=True, classifies=True),
    "mixtral": replace(_USUAL, supports_packing=True),
    "modernbert-decoder": replace(_USUAL, writes=True, classifies=True),
    "mpnet": replace(_USUAL, classifies=True, lost_positions=2),
    "mpt": replace(_USUAL, writes=True, classifies=True),
    "mra": replace(_USUAL, classifies=True),
    "nanochat": replace(_USUAL, writes=True),
    "nomic_bert": replace(_USUAL, classifies=True),
    "olmo_hybrid": replace(_USUAL, writes=True),
    "openai-gpt": replace(_USUAL, writes=True, classifies=True),
    "opt": replace(_USUAL, writes=True, classifies=True, default_dropout=False),
    "persimmon": replace(_USUAL, writes=True, classifies=True, supports_packing=True),
    "qwen3_5_text": replace(_USUAL, writes=True),
    "qwen3_moe": replace(_USUAL, supports_packing=True),
    "recurrent_gemma": replace(_USUAL, writes=True),
    "rembert": replace(_USUAL, writes_if_decoder=True, classifies=True),
    "roberta-prelayernorm": replace(_USUAL, writes_if_decoder=True, classifies=True, positions_from_padding=True),
    "roc_bert": replace(_USUAL, writes_if_decoder=True, classifies=True),
    "roformer": replace(_USUAL, writes_if_decoder=True, classifies=True),
    "squeezebert": replace(_USUAL, classifies=True),
    "ultrabert": replace(_USUAL, classifies=True),
    "vaultgemma": replace(_USUAL, writes=True),
    "xglm": replace(_USUAL, writes=True),
    "xlm": replace(_USUAL, classifies=True),
    "xlm-roberta-xl": replace(_USUAL, writes_if_decoder=True, classifies=True, positions_from_padding=True),
    "xmod": replace(_USUAL, positions_from_padding=True),
}


def family_of(model_type: str) -> Family:
    """The record of a model_type; where there is none, the usual pattern, which is trained for no task."""
    return FAMILIES.get(model_type, _USUAL)


# -- names of all families --------------------------------------------------------------------------------------------
HEADS = ("score", "classifier", "pre_classifier")
"""Modules of a classification head."""
UNQUANTIZED = ("lm_head", "embed_out", *HEADS, "pooler")
"""Modules that stay in 32 bits when a model is stored in 4: output layers, and layers that are trained."""

# members of a config.json, in the order in which they are looked for
HIDDEN_SIZES = ("hidden_size", "n_embd", "d_model", "dim", "emb_dim")
HEAD_COUNTS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads")
DEPTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
INNER_SIZES = ("intermediate_size", "n_inner", "hidden_dim", "ffn_dim")
POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
DROPOUT_GROUPS = (
    ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    ("dropout", "attention_dropout"),
)
"""Members of a config.json that set a model's dropout, in groups of those that occur together; attention's last."""
DROPOUTS = tuple(name for group in DROPOUT_GROUPS for name in group)
"""All members of a config.json that set a model's dropout."""
WITHOUT_SIZE = (
    "transformers_version",
    "dtype",
    "torch_dtype",
    "_name_or_path",
    "architectures",
    "initializer_range",
    "bos_token_id",
    "eos_token_id",
    "pretraining_tp",
    "auto_map",
    "id2label",
    "label2id",
)
"""Members of a config.json that change no size of a tensor, and so no memory table."""
