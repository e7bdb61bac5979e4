"""VideoChat2 assembled: UMT encoder, Q-Former, projection and Mistral."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Blip2QFormerModel, MistralModel, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import CausalLMOutputWithPast

from tpo_lab.backbones.videochat2_parts.configuration import VideoChat2Config
from tpo_lab.backbones.videochat2_parts.umt import UMTAttention, UMTEncoder


class VideoChat2PreTrainedModel(PreTrainedModel):  # type: ignore[no-untyped-call]
    """What transformers wants to know to build, save and load the model."""

    config_class = VideoChat2Config
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ["video", "text"]  # noqa: RUF012
    supports_gradient_checkpointing = True
    _no_split_modules = ["UMTLayer", "Blip2QFormerLayer", "MistralDecoderLayer"]  # noqa: RUF012 - as transformers declares it
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)  # type: ignore[no-untyped-call]
        if isinstance(module, UMTAttention):
            init.zeros_(module.q_bias)
            init.zeros_(module.v_bias)
        if isinstance(module, VideoChat2Model):
            init.normal_(module.query_tokens, std=self.config.initializer_range)
            init.zeros_(module.extra_query_tokens)


class VideoChat2Model(VideoChat2PreTrainedModel):  # type: ignore[no-untyped-call]
    """Everything but the output layer."""

    def __init__(self, config: VideoChat2Config) -> None:
        super().__init__(config)
        reader, width = config.qformer_config, config.text_config.hidden_size
        self.vision_tower = UMTEncoder(config.vision_config)
        self.query_tokens = nn.Parameter(torch.zeros(1, config.num_query_tokens, reader.hidden_size))
        self.extra_query_tokens = nn.Parameter(torch.zeros(1, config.num_extra_query_tokens, reader.hidden_size))
        self.qformer = Blip2QFormerModel(reader)
        self.projector = nn.Linear(reader.hidden_size, width)
        self.language_model = MistralModel(config.text_config)
        self.post_init()  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> nn.Module:
        """The language model's."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the language model's."""
        self.language_model.set_input_embeddings(value)

    def get_video_features(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Encode clips of normalised pixels [clip, frame, 3, h, w].

        Returns:
            visual tokens of each whole clip [clip, query, d], and the encoder's features [clip, frame, patch, d_vision].

        Differs in: in training, published, whole clips skip layers of the Q-Former at random (stochastic depth up to 0.2); here none does.
        """
        frames = self.vision_tower(pixel_values)
        queries = torch.cat([self.query_tokens, self.extra_query_tokens], 1).expand(len(frames), -1, -1)
        read = self.qformer(query_embeds=queries, encoder_hidden_states=frames.flatten(1, 2)).last_hidden_state
        return self.projector(read), frames

    def embed(self, input_ids: Tensor, pixel_values: Tensor | None) -> Tensor:
        """Embed tokens [row, token]; the visual tokens of clips replace the video token, in order.

        Raises:
            ValueError: there are not as many visual tokens as places for them.
        """
        embeds: Tensor = self.get_input_embeddings()(input_ids)
        if pixel_values is None:
            return embeds
        tokens = self.get_video_features(pixel_values)[0].flatten(0, 1)
        places = input_ids == self.config.video_token_id
        if int(places.sum()) != len(tokens):
            raise ValueError(f"input_ids: expected {len(tokens)} video tokens, got {int(places.sum())}.")
        return embeds.masked_scatter(places[..., None], tokens.to(embeds.dtype))

    def forward(
        self, input_ids: Tensor | None = None, pixel_values: Tensor | None = None, inputs_embeds: Tensor | None = None, **kwargs: Any
    ) -> Any:
        """Run the language model over tokens and clips; further arguments are those of `MistralModel`."""
        if inputs_embeds is None:
            assert input_ids is not None
            inputs_embeds = self.embed(input_ids, pixel_values)
        return self.language_model(inputs_embeds=inputs_embeds, **kwargs)


class VideoChat2ForConditionalGeneration(VideoChat2PreTrainedModel):  # type: ignore[no-untyped-call]
    """VideoChat2 with its output layer.

    Source: Li et al., "MVBench" (2023), VideoChat2; the released weights of VideoChat-TPO.
    Differs in: the Q-Former reads queries only; published, it can read the question beside them, which VideoChat-TPO does not use.
    """

    def __init__(self, config: VideoChat2Config) -> None:
        super().__init__(config)
        self.model = VideoChat2Model(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> nn.Module:
        """The language model's."""
        return self.model.get_input_embeddings()  # type: ignore[no-any-return]

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the language model's."""
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """The output layer."""
        return self.lm_head  # type: ignore[no-any-return]

    def set_output_embeddings(self, value: nn.Linear) -> None:
        """Replace the output layer."""
        self.lm_head = value

    def forward(
        self, input_ids: Tensor | None = None, pixel_values: Tensor | None = None, labels: Tensor | None = None, **kwargs: Any
    ) -> CausalLMOutputWithPast:
        """Logits over the vocabulary [row, token, vocabulary].

        Args:
            input_ids: [row, token], `config.visual_tokens` of them the video token for each clip.
            pixel_values: normalised by the mean and deviation of ImageNet [clip, frame, 3, h, w].
            labels: the next token at each place is learned where they are not -100 [row, token].
            kwargs: those of `MistralModel`.
        """
        output = self.model(input_ids=input_ids, pixel_values=pixel_values, **kwargs)
        logits = self.lm_head(output.last_hidden_state)
        loss = None if labels is None else F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=output.past_key_values)
