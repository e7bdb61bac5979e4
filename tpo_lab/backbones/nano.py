"""The nano backbone: a few million parameters of the real LLaVA-OneVision classes, small enough to train on two CPU cores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tpo_lab.backbones.base import ChatFormat
from tpo_lab.backbones.llava_onevision import LlavaOnevisionBackbone
from tpo_lab.backbones.nano_tokenizer import build_nano_tokenizer
from tpo_lab.errors import UsageError

if TYPE_CHECKING:
    from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

IMAGE_SIZE = 64
PATCH = 8


def nano_config(vocabulary: int, *, video_token: int, image_token: int) -> LlavaOnevisionConfig:
    """SigLIP tower (64 patches of 8 pixels), two-layer projector, Qwen2 language model."""
    from transformers import LlavaOnevisionConfig, Qwen2Config, SiglipVisionConfig

    return LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=4,
            num_attention_heads=4,
            image_size=IMAGE_SIZE,
            patch_size=PATCH,
            vision_use_head=False,
        ),
        text_config=Qwen2Config(
            vocab_size=vocabulary,
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=6,
            num_attention_heads=6,
            num_key_value_heads=6,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            pad_token_id=0,
        ),
        image_token_index=image_token,
        video_token_index=video_token,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_grid_pinpoints=[[IMAGE_SIZE, IMAGE_SIZE]],
        tie_word_embeddings=True,
    )


class ConvolutionalStem(nn.Module):
    """Strided 3x3 convolutions in place of the single patchify layer: [frame, 3, h, w] -> [frame, width, h / 8, w / 8].

    A single 8x8 patchify layer with few blocks does not tell shapes apart at this size; three small convolutions do.
    Source: Xiao et al., "Early convolutions help transformers see better" (2021).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, width // 4, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(width // 4, width // 2, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(width // 2, width, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    @property
    def weight(self) -> torch.Tensor:
        """SigLIP's embedding layer asks its patch embedding for the dtype by this name."""
        return self.layers[0].weight  # type: ignore[return-value]

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Patch features."""
        return self.layers(pixel_values)  # type: ignore[no-any-return]


def build_nano(vocabulary: int, *, video_token: int, image_token: int) -> LlavaOnevisionForConditionalGeneration:
    """A randomly initialised nano model."""
    from transformers import LlavaOnevisionForConditionalGeneration

    config = nano_config(vocabulary, video_token=video_token, image_token=image_token)
    model: Any = LlavaOnevisionForConditionalGeneration(config)
    embeddings = model.model.vision_tower.embeddings
    embeddings.patch_embedding = ConvolutionalStem(config.vision_config.hidden_size)
    # transformers draws everything from N(0, 0.02); at this width that leaves attention flat for long
    for module in model.modules():
        if hasattr(module, "reset_parameters") and type(module).__name__ in ("Linear", "Conv2d"):
            module.reset_parameters()
    return model  # type: ignore[no-any-return]


NANO_CHAT = ChatFormat(
    open="<bos><user>",
    before_question=" ",
    before_answer="<assistant>",
    before_reply=" ",
    end="<eos>",
    before_next_question="<user> ",
)
NUM_FRAMES = 8


class NanoBackbone(LlavaOnevisionBackbone):
    """A nano LLaVA-OneVision; only its size, its stem and its chat strings differ from the real ones."""

    def __init__(self, model: Any, tokenizer: Any, *, num_frames: int = NUM_FRAMES) -> None:
        super().__init__(model, tokenizer, name="nano", num_frames=num_frames, chat=NANO_CHAT)

    def save(self, folder: Path) -> None:
        """Write weights in half precision (they are read back into fp32), configuration and tokenizer."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        state = {name: tensor.detach().half().contiguous() for name, tensor in self.model.state_dict().items() if name != "lm_head.weight"}
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        config = {"num_frames": self.num_frames, "vocabulary": self.vocabulary}
        (folder / "nano.json").write_text(json.dumps(config, indent=2) + "\n")
        self.tokenizer.save_pretrained(folder)


def new_nano(tokenizer: Any | None = None) -> NanoBackbone:
    """A nano backbone with random weights (seed torch first) and its tokenizer."""
    tokenizer = tokenizer or build_nano_tokenizer()
    video, image = (int(tokenizer.convert_tokens_to_ids(name)) for name in ("<video>", "<image>"))
    # a multiple of 64 rows, as larger models pad theirs
    return NanoBackbone(build_nano(-(-len(tokenizer) // 64) * 64, video_token=video, image_token=image), tokenizer)


def load_nano(folder: Path) -> NanoBackbone:
    """Load a nano backbone that `NanoBackbone.save` wrote.

    Raises:
        UsageError: where the folder holds none.
    """
    from safetensors.torch import load_file
    from transformers import PreTrainedTokenizerFast

    if not (folder / "nano.json").exists():
        raise UsageError("backbone", expected="a folder with nano.json and model.safetensors", got=str(folder))
    config = json.loads((folder / "nano.json").read_text())
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    video, image = (int(tokenizer.convert_tokens_to_ids(name)) for name in ("<video>", "<image>"))
    model = build_nano(config["vocabulary"], video_token=video, image_token=image)
    state = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    if set(missing) - {"lm_head.weight"} or unexpected:
        raise UsageError("backbone", expected="the weights of a nano model", got={"missing": missing, "unexpected": unexpected})
    model.tie_weights()
    return NanoBackbone(model.eval(), tokenizer, num_frames=config["num_frames"])
