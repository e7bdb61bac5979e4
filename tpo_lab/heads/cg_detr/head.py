"""CG-DETR as a head: what goes into the network, which terms it learns from, and how its proposals become an answer."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from tpo_lab.axes import require_axes
from tpo_lab.heads.base import ClipInfo, Head, HeadSettings, Visual, require_finite
from tpo_lab.heads.cg_detr.glance import likeliest_windows, soft_iou
from tpo_lab.heads.cg_detr.losses import label_values
from tpo_lab.heads.cg_detr.matcher import WindowMatches, match_windows
from tpo_lab.heads.cg_detr.negatives import pair_negatives, same_footage
from tpo_lab.heads.cg_detr.network import Network, Reading, Scene, text_share
from tpo_lab.heads.cg_detr.postprocess import windows_of
from tpo_lab.heads.cg_detr.settings import CGDETRSettings
from tpo_lab.heads.cg_detr.targets import CGDETRItem, CGDETRTarget, collate_items, encode_item
from tpo_lab.heads.cg_detr.terms import alignment_terms, attention_terms, saliency_terms
from tpo_lab.heads.sliding import Sliding
from tpo_lab.heads.windows import pool_windows
from tpo_lab.precomputed import FeatureFiles
from tpo_lab.spans import cw_to_sec, frame_cells, sec_to_cw, span_giou

OFFICIAL_ROUND_SEC = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CGDETRPrediction:
    """Proposals of every decoder layer, saliency of every frame, and what the training terms look at again.

    Attributes:
        spans_cw: (centre, width) in [0,1] of the clip [layer, slot, query, 2]; the last layer answers.
        class_logits: foreground first [layer, slot, query, 2].
        saliency_logits: [slot, frame]; the sigmoid is shown as the frame's saliency.
        attention: of frames to dummies and text, the mean over heads and layers [slot, frame, dummy + token]; rows sum to 1.
        times_sec: seconds of the frames [slot, frame].
        cells_sec: (start, end) of each frame's cell in seconds [slot, frame, 2].
        duration_sec: of the clips [slot].
        frame_valid: which frames exist [slot, frame].
        footage: pooled features of the frames, without gradient [slot, frame, d_vision].
        scene: the projected inputs.
        glance_logits: the part of `saliency_logits` that `pooled` gave [slot, frame], or None.
        first_cw: where it makes the proposals start, as `spans_cw` [slot, query, 2], or None: they start where they learned to.
    """

    spans_cw: Tensor
    class_logits: Tensor
    saliency_logits: Tensor
    attention: Tensor
    times_sec: Tensor
    cells_sec: Tensor
    duration_sec: Tensor
    frame_valid: Tensor
    footage: Tensor
    scene: Scene
    glance_logits: Tensor | None = None
    first_cw: Tensor | None = None


@dataclass(frozen=True)
class PooledFrames:
    """One vector per frame, and what else a head sees of it.

    Attributes:
        vectors: [slot, frame, d_vision].
        fits: more numbers of each frame [slot, frame, fits].
        glance_logits: of each frame's belonging to the moment at first sight, added to the network's saliency [slot, frame], or None;
            proposals start from the likeliest windows by them, and count by `trust` as their windows agree with them.
    """

    vectors: Tensor
    fits: Tensor
    glance_logits: Tensor | None = None


class CGDETRHead(Head[CGDETRPrediction, CGDETRTarget]):
    """CG-DETR: moment retrieval and highlight detection from the video's features, the question and the task embedding.

    Frames are the means of their patches, text the language model's states of the question, and the task embedding is one more token
    behind the question's last. `predict` is the same in training and inference; all that only training needs (texts that do not
    belong, sentence and moment tokens) is computed in `losses`.

    Source: TPO, temporal head; CG-DETR (arXiv 2311.08835).
    Differs in, everywhere: features and text come from the backbone and not from InternVideo2 and a second language model, features
    are L2-normalised in training and inference alike (the published demo forgets it), the whole head runs in fp32, logarithms are
    bounded or softplus, margin terms average over all pairs, attention is read before dropout, negative texts are compared by footage,
    run without the decoder and reuse the dummies of their own slot, averages count valid entries only so that padding changes nothing,
    a clip without windows teaches "no window" and low saliency and takes no part in alignment, and keys have no bias.
    Differs in, unless `behaviour="official"`: the dummies' sentence belongs to what is outside the moment (published: the
    second column for the first row, and the first for all others), dot products of moment and frames are divided by sqrt(d) (published:
    raw, so that the term starts near 50), a negative text is looked for in the whole batch (published: the next slot or none), windows
    keep their fractions of a second (published: rounded to seconds) and near doubles are left out (published: kept), and
    the decoder's contents are learned (published: zero).
    """

    name: ClassVar[str] = "temporal"
    variant: ClassVar[str] = "cg-detr"
    needs: ClassVar[frozenset[str]] = frozenset({"frame_features", "query"})
    Settings: ClassVar[type[HeadSettings]] = CGDETRSettings
    settings: CGDETRSettings
    fits: ClassVar[int] = 0
    """Numbers that `pooled` gives of each frame beside its features."""
    trust: nn.Parameter | None
    """By how much the logit of a proposal rises with its agreement with the first guess of `pooled`, for heads that give one."""

    def __init__(self, embed_dim: int, settings: CGDETRSettings | None = None) -> None:
        super().__init__(embed_dim, settings)
        self.network = Network(embed_dim, self.settings, self.fits)
        self.register_parameter("trust", None)
        self._told = False

    @property
    def features(self) -> FeatureFiles | None:
        """The files that the settings name."""
        return self.settings.feature_files

    @property
    def sliding(self) -> Sliding | None:
        """As the settings say."""
        return self.settings.sliding

    def predict(self, task_embedding: Tensor, visual: Visual) -> CGDETRPrediction:
        """Propose windows and score frames, looking at the frames' features, their times, and the question."""
        features, query, query_valid = visual.frame_features, visual.query_features, visual.query_valid
        assert features is not None and query is not None and query_valid is not None
        require_axes("visual.frame_features", features, slot=None, frame=None, patch=None, d_vision=self.settings.vision_dim)
        times_sec, valid, duration_sec = visual.times_sec.float(), visual.frame_valid, visual.duration_sec.float()
        cells_sec = frame_cells(times_sec, duration_sec, valid)
        frames = self.pooled(task_embedding, visual)
        kinds = torch.split(frames.vectors, list(self.settings.widths), dim=-1)
        pooled = torch.cat([functional.normalize(kind, dim=-1, eps=1e-5) for kind in kinds], dim=-1)
        ends = cells_sec / duration_sec.clamp(min=torch.finfo(torch.float32).tiny)[:, None, None]
        kept = self.settings.max_text
        words = functional.normalize(query[:, :kept].to(task_embedding.dtype), dim=-1, eps=1e-5)
        text, text_valid = append(words, query_valid[:, :kept], task_embedding)
        scene = self.network.project(torch.cat([pooled, ends, frames.fits], dim=-1), valid, text, text_valid)
        reading = self.network.read(scene)
        glance = frames.glance_logits
        first = None
        if glance is not None:
            first = likeliest_windows(glance.detach(), ends, valid, self.settings.queries, self.settings.nms_iou)
        spans_cw, class_logits = self.network.decoder(reading.memory, scene.frame_position, valid, first)
        if glance is not None and self.trust is not None:
            agreement = soft_iou(cw_to_sec(spans_cw.detach(), 1.0), glance.sigmoid().detach(), ends, valid)
            class_logits = torch.stack([class_logits[..., 0] + self.trust * agreement, class_logits[..., 1]], -1)
        return CGDETRPrediction(
            spans_cw=spans_cw,
            class_logits=class_logits,
            saliency_logits=reading.saliency_logits if glance is None else reading.saliency_logits + glance,
            attention=reading.attention,
            times_sec=times_sec,
            cells_sec=cells_sec,
            duration_sec=duration_sec,
            frame_valid=valid,
            footage=pooled.detach(),
            scene=scene,
            glance_logits=glance,
            first_cw=first,
        )

    def pooled(self, task_embedding: Tensor, visual: Visual) -> PooledFrames:
        """The patches of each frame as one vector: here their mean, and nothing else."""
        assert visual.frame_features is not None
        vectors = visual.frame_features.to(task_embedding.dtype).mean(2)
        return PooledFrames(vectors, vectors[..., :0])

    def losses(self, prediction: CGDETRPrediction, target: CGDETRTarget) -> dict[str, Tensor]:
        """All terms, by name; those of the decoder's earlier layers end in "_layer1", "_layer2", ...

        "span" and "giou" per pair of `placed`, "label" per proposal; "saliency_margin", "saliency_rank", "saliency_negative" per slot,
        the same and "attention_match" (per frame) for the attention; "align_sentence", "align_dummies" per slot, "align_frames" per
        frame; "distill" per frame of a moment; "orthogonal_dummies" per slot, "orthogonal_prototypes" once. What cannot be had has no
        value: negative terms where all slots look at the same footage, alignment where nothing happens.
        """
        require_axes("target.window_valid", target.validate().window_valid, slot=len(prediction.frame_valid), window=None)
        inside = target.inside(prediction.cells_sec, prediction.frame_valid)
        levels = target.levels(inside, top_grade=self.settings.top_grade, count=self.settings.grades)
        rows, partner = pair_negatives(same_footage(prediction.footage, prediction.frame_valid), nearest=not self.settings.official)
        self._tell_of_missing_negatives(len(rows))
        negative = self.network.read(prediction.scene.with_text_of(rows, partner))
        positive = Reading(prediction.scene.frames, prediction.saliency_logits, prediction.attention)
        return {
            **self._window_terms(prediction, target),
            **saliency_terms(positive, negative, rows, levels, prediction.frame_valid, self.settings),
            **attention_terms(positive, negative, rows, levels, prediction.frame_valid, self.settings),
            **alignment_terms(self.network, prediction.scene, prediction.attention, inside, self.settings),
        }

    def weights(self) -> Mapping[str, float]:
        """The weight of every term, `scale` included."""
        chosen = self.settings
        attention = chosen.weight_saliency * chosen.weight_attention
        single = {"span": chosen.weight_span, "giou": chosen.weight_giou, "label": chosen.weight_label}
        terms = {
            **{term + layer: weight for layer in self._layer_names() for term, weight in single.items()},
            **dict.fromkeys(("saliency_margin", "saliency_rank", "saliency_negative"), chosen.weight_saliency),
            **dict.fromkeys(("attention_margin", "attention_rank", "attention_negative", "attention_match"), attention),
            **dict.fromkeys(("align_sentence", "align_dummies", "align_frames"), chosen.weight_align),
            "distill": chosen.weight_distill,
            **dict.fromkeys(("orthogonal_dummies", "orthogonal_prototypes"), chosen.weight_orthogonal),
        }
        return {term: chosen.scale * weight for term, weight in terms.items()}

    def encode_target(self, annotation: Mapping[str, Any], clip: ClipInfo) -> CGDETRItem:
        """Read windows and saliency of one answer; see `encode_item`."""
        return encode_item(annotation, clip)

    def collate_targets(self, items: Sequence[CGDETRItem], slots_per_answer: Sequence[int], device: torch.device | str) -> CGDETRTarget:
        """Pad windows and frames to the longest; every slot of an answer gets the same."""
        return collate_items(items, slots_per_answer, device)

    def decode(self, prediction: CGDETRPrediction, clips: Sequence[ClipInfo], answer: Tensor) -> list[dict[str, Any]]:
        """Per answer: "windows_sec" best first, their "scores" in [0, 1], "saliency" as [seconds, score in (0, 1)] of each frame, and
        "attention" as [seconds, share in [0, 1] of the frame's attention that goes to the text].

        Several slots of an answer pool their windows, and the higher saliency and share count.
        """
        spans, logits = (require_finite(self.name, part[-1]) for part in (prediction.spans_cw, prediction.class_logits))
        valid = prediction.frame_valid.cpu()
        saliency = require_finite(self.name, prediction.saliency_logits.masked_fill(~prediction.frame_valid, 0)).sigmoid()
        shares = require_finite(self.name, text_share(prediction.attention, self.settings.dummies)[0])
        times, answer = prediction.times_sec.detach().cpu(), answer.cpu()
        official_sec = OFFICIAL_ROUND_SEC if self.settings.official else None
        round_sec = official_sec if self.settings.round_sec is None else self.settings.round_sec
        decoded: list[dict[str, Any]] = []
        for index, clip in enumerate(clips):
            slots = (answer == index).nonzero()[:, 0].tolist()
            if not slots:
                decoded.append({"windows_sec": [], "scores": [], "saliency": [], "attention": []})
                continue
            found = [windows_of(spans[slot], logits[slot].softmax(-1)[:, 0], clip.duration_sec, round_sec) for slot in slots]
            nms_iou = 1.0 if self.settings.official else self.settings.nms_iou
            windows, scores = pool_windows(found, nms_iou=nms_iou, count=self.settings.max_windows)
            seen = valid[slots[0]]
            curves = {
                name: torch.stack([times[slots[0]], curve[slots].amax(0)], dim=-1)[seen].tolist()
                for name, curve in (("saliency", saliency), ("attention", shares))
            }
            decoded.append({"windows_sec": windows, "scores": scores, **curves})
        return decoded

    def diagnostics(self, prediction: CGDETRPrediction, target: CGDETRTarget) -> dict[str, float]:
        """Mean share of attention that goes to the text, of frames inside the moment and outside: apart where the dummies work."""
        inside = target.inside(prediction.cells_sec, prediction.frame_valid)
        share = text_share(prediction.attention.detach(), self.settings.dummies)[0]
        places = {"text_share_inside": inside, "text_share_outside": ~inside & prediction.frame_valid}
        return {name: float(share[place].mean()) for name, place in places.items() if place.any()}

    def match(self, prediction: CGDETRPrediction, target: CGDETRTarget) -> WindowMatches:
        """Which proposal answers for which annotated window."""
        return match_windows(
            prediction.spans_cw,
            prediction.class_logits.softmax(-1)[..., 0],
            sec_to_cw(target.windows_sec, prediction.duration_sec[:, None]),
            target.window_valid,
            weight_span=self.settings.weight_span,
            weight_giou=self.settings.weight_giou,
            weight_label=self.settings.weight_label,
        )

    def placed(self, prediction: CGDETRPrediction, target: CGDETRTarget, matches: WindowMatches) -> WindowMatches:
        """Which proposal learns the place of which annotated window: here those that answer for one, the `matches`."""
        return matches

    def _window_terms(self, prediction: CGDETRPrediction, target: CGDETRTarget) -> dict[str, Tensor]:
        matches, known = self.match(prediction, target), target.windows_known()
        foreground = torch.zeros(prediction.class_logits.shape[:-1], dtype=torch.bool, device=prediction.class_logits.device)
        foreground[matches.layer, matches.slot, matches.query] = True
        placed = self.placed(prediction, target, matches)
        wanted = sec_to_cw(target.windows_sec, prediction.duration_sec[:, None])[placed.slot, placed.window]
        spans = prediction.spans_cw[placed.layer, placed.slot, placed.query]
        distance = (spans - wanted).abs().mean(-1)
        overlap = span_giou(cw_to_sec(spans, 1.0), cw_to_sec(wanted, 1.0))
        terms = {}
        for layer, name in enumerate(self._layer_names()):
            here = placed.layer == layer
            logits, flags = prediction.class_logits[layer][known], foreground[layer][known]
            terms["span" + name], terms["giou" + name] = distance[here], 1 - overlap[here]
            terms["label" + name] = label_values(logits, flags, self.settings.background_weight)
        return terms

    def _layer_names(self) -> list[str]:
        return [f"_layer{number}" for number in range(1, self.settings.decoder_layers)] + [""]

    def _tell_of_missing_negatives(self, pairs: int) -> None:
        # a probe of a few samples learns nothing, and is no reason for a warning
        if pairs == 0 and self.training and not self._told:
            _log.warning("temporal head: no two slots of a batch look at different footage, so that no text is a negative one.")
            self._told = True


def append(words: Tensor, valid: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """Put one more token [slot, d] behind the last valid one of each row [slot, token, d]; returns tokens and which are valid."""
    ranks = torch.arange(1, valid.shape[1] + 1, device=valid.device)
    place = (valid * ranks).amax(-1) if valid.shape[1] else valid.new_zeros(len(valid), dtype=torch.long)
    here = functional.one_hot(place, valid.shape[1] + 1).bool()
    longer = functional.pad(words, (0, 0, 0, 1))
    return torch.where(here[..., None], last[:, None], longer), functional.pad(valid, (0, 1)) | here
