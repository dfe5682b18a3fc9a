"""Pictures of one size attend in one call instead of one call each: the same numbers, without a loop over pictures."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as qwen

from tessera.training.attend import attend


class TogetherAttention(qwen.Qwen2_5_VLVisionAttention):
    """Attention within pictures, which lie one after the other in `hidden_states` (patches, width)."""

    def forward(
        self,
        hidden_states: Tensor,
        cu_seqlens: Tensor,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        *args: Any,
        **more: Any,
    ) -> Tensor:
        """(patches, width) what patches give; pictures of several sizes go the library's own way."""
        sizes = cu_seqlens.diff()
        size = int(sizes[0])
        other = self.config._attn_implementation != "sdpa"
        if other or position_embeddings is None or len(sizes) == 1 or not bool((sizes == size).all()):
            attended: Tensor = super().forward(hidden_states, cu_seqlens, position_embeddings, *args, **more)
            return attended
        patches = len(hidden_states)
        heads = self.qkv(hidden_states).reshape(patches, 3, self.num_heads, -1).permute(1, 0, 2, 3).unbind(0)
        cos, sin = position_embeddings
        turned = qwen.apply_rotary_pos_emb_vision(heads[0], heads[1], cos, sin)
        query, key, value = (part.view(-1, size, *part.shape[1:]).transpose(1, 2) for part in (*turned, heads[2]))
        states = attend(query, key, value, scale=self.scaling)
        given: Tensor = self.proj(states.transpose(1, 2).reshape(patches, -1))
        return given


def attend_together(model: nn.Module) -> None:
    """Let the pictures of a Qwen2.5-VL attend in one call, in place; other models are left as they are."""
    for module in model.modules():
        if type(module) is qwen.Qwen2_5_VLVisionAttention:
            module.__class__ = TogetherAttention
