"""The configuration of VideoChat2; its defaults are the sizes of the published VideoChat-TPO."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import Blip2QFormerConfig, MistralConfig, PretrainedConfig

MISTRAL_7B: dict[str, Any] = {
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32_768,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    "sliding_window": None,
    "tie_word_embeddings": False,
}
"""Mistral-7B-Instruct-v0.2, whose vocabulary the published weights have."""


class UMTConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """The UMT encoder.

    Attributes:
        hidden_size: width of the patches.
        num_hidden_layers: layers that are run; the published UMT-L has 24, of which VideoChat2 takes the state after the 23rd.
        num_attention_heads: of each layer.
        intermediate_size: width between the two linear layers behind each attention.
        image_size: side of the square frames, in pixels.
        patch_size: side of a patch, in pixels; a patch is one frame deep.
        position_frames: frames of a clip in the encoder's own training, from whose positions those of other clips are interpolated.
        layer_norm_eps: of the norms in the layers.
        output_norm_eps: of the norm behind the last layer, which belongs to VideoChat2.
    """

    model_type = "umt"
    base_config_key = "vision_config"

    def __init__(
        self,
        hidden_size: int = 1024,
        num_hidden_layers: int = 23,
        num_attention_heads: int = 16,
        intermediate_size: int = 4096,
        image_size: int = 224,
        patch_size: int = 16,
        position_frames: int = 4,
        layer_norm_eps: float = 1e-6,
        output_norm_eps: float = 1e-12,
        **kwargs: Any,
    ) -> None:
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.image_size = image_size
        self.patch_size = patch_size
        self.position_frames = position_frames
        self.layer_norm_eps = layer_norm_eps
        self.output_norm_eps = output_norm_eps
        super().__init__(**kwargs)

    @property
    def patches_per_side(self) -> int:
        """Patches along a side of a frame."""
        return int(self.image_size // self.patch_size)


class VideoChat2Config(PretrainedConfig):  # type: ignore[no-untyped-call]
    """VideoChat2: an encoder of clips, a Q-Former that reads them, and a language model.

    Attributes:
        num_query_tokens: queries of the Q-Former's own training.
        num_extra_query_tokens: those that VideoChat2 added behind them; a clip takes as many visual tokens as both together.
        video_token_id: the token whose embeddings are replaced by visual tokens: `<unk>`, as published.
        frame_times: whether a clip is followed by a sentence that says when its frames were taken.
    """

    model_type = "videochat2"
    sub_configs: ClassVar[dict[str, Any]] = {"vision_config": UMTConfig, "qformer_config": Blip2QFormerConfig, "text_config": MistralConfig}

    def __init__(
        self,
        vision_config: dict[str, Any] | UMTConfig | None = None,
        qformer_config: dict[str, Any] | Blip2QFormerConfig | None = None,
        text_config: dict[str, Any] | MistralConfig | None = None,
        num_query_tokens: int = 32,
        num_extra_query_tokens: int = 64,
        video_token_id: int = 0,
        frame_times: bool = False,
        initializer_range: float = 0.02,
        **kwargs: Any,
    ) -> None:
        self.vision_config = _built(UMTConfig, vision_config, {})
        self.qformer_config = _built(Blip2QFormerConfig, qformer_config, {"encoder_hidden_size": self.vision_config.hidden_size})
        self.text_config = _built(MistralConfig, text_config, MISTRAL_7B)
        self.num_query_tokens = num_query_tokens
        self.num_extra_query_tokens = num_extra_query_tokens
        self.video_token_id = video_token_id
        self.frame_times = frame_times
        self.initializer_range = initializer_range
        kwargs.setdefault("tie_word_embeddings", False)
        super().__init__(**kwargs)

    @property
    def visual_tokens(self) -> int:
        """Visual tokens of a clip."""
        return int(self.num_query_tokens + self.num_extra_query_tokens)


def _built(kind: Any, given: Any, default: dict[str, Any]) -> Any:
    return given if isinstance(given, PretrainedConfig) else kind(**(default if given is None else given))
