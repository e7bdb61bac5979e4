"""The rows of a stage: the same whoever decodes them and wherever one starts; decoded once; left out by name where they cannot be read."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from tests.loading.small_films import FRAMES, SIDE, shown, small_backbone, stage
from tpo_lab.backbones import FAMILIES, load_backbone
from tpo_lab.backbones.tiny import write_tiny
from tpo_lab.clips import ClipLoader, UnreadableClip, UnreadableFeatures, media_key
from tpo_lab.datasets.conversion import Limit
from tpo_lab.errors import TPOError
from tpo_lab.media import Frames
from tpo_lab.precomputed import FeatureFiles, FeatureFolder
from tpo_lab.sample import Sample
from tpo_lab.training import StageData, by_task
from tpo_lab.training.rows import data as data_module
from tpo_lab.training.rows.decoding import ClipRequest
from tpo_lab.training.rows.dropped import DropList
from tpo_lab.training.rows.loading import RowSource, Share

CLIP_BYTES = FRAMES * 3 * SIDE * SIDE


def source(data: StageData, *, limit: int = 2 << 30, **settings: Any) -> RowSource:
    return RowSource(data, Frames(small_backbone(), limit_bytes=limit), **settings)


@pytest.fixture(scope="module")
def expected(regions: StageData) -> list[list[Any]]:
    frames = Frames(small_backbone())
    return [[shown(frames.row(samples)) for samples in regions.batch(step)] for step in range(regions.total_steps)]


class TestTheSameRows:
    @settings(max_examples=12)
    @given(
        workers=st.integers(0, 3),
        prefetch=st.integers(1, 3),
        start=st.integers(0, 10),
        steps=st.integers(1, 5),
        room=st.sampled_from([0, CLIP_BYTES, 3 * CLIP_BYTES, 1 << 30]),
    )
    def test_with_any_number_of_workers_from_any_step_with_any_room(
        self, regions: StageData, expected: list[list[Any]], workers: int, prefetch: int, start: int, steps: int, room: int
    ) -> None:
        until = min(start + steps, regions.total_steps)
        with source(regions, limit=room, workers=workers, prefetch=prefetch) as rows:
            found = [[shown(row) for row in rows.rows(step)] for step in range(start, until)]
        assert found == expected[start:until]

    def test_when_the_steps_are_not_asked_for_in_order(self, regions: StageData, expected: list[list[Any]]) -> None:
        with source(regions, workers=2) as rows:
            for step in (4, 5, 2, 10, 0):
                assert [shown(row) for row in rows.rows(step)] == expected[step]

    @pytest.mark.parametrize("workers", [0, 2])
    def test_processes_share_a_batch(self, regions: StageData, expected: list[list[Any]], workers: int) -> None:
        parts = [source(regions, share=Share(rank, 2), workers=workers) for rank in range(2)]
        try:
            for step in (0, 1):
                assert [shown(row) for part in parts for row in part.rows(step)] == expected[step]
        finally:
            for part in parts:
                part.close()

    def test_workers_that_do_not_inherit_this_process(self, regions: StageData, expected: list[list[Any]]) -> None:
        """As where CUDA is in use; the frames are resized by what was pickled."""
        with source(regions, workers=1, method="spawn") as rows:
            assert [shown(row) for row in rows.rows(3)] == expected[3]

    def test_random_numbers_of_the_training_stay_as_they_are(self, regions: StageData) -> None:
        before = torch.get_rng_state()
        with source(regions, workers=2) as rows:
            rows.rows(0)
        assert torch.equal(torch.get_rng_state(), before)


class Counting(RowSource):
    """Counts what its workers are asked for."""

    asked: list[str]

    def _wanted(self, rows: list[list[Sample]]) -> Any:
        for request in super()._wanted(rows):
            self.asked.append(media_key(request.sample))
            yield request


def asked(data: StageData, room: int) -> tuple[list[str], int]:
    frames = Frames(small_backbone(), limit_bytes=room)
    counting = Counting(data, frames, workers=2)
    counting.asked = []
    with counting:
        for step in range(data.total_steps):
            counting.rows(step)
    return counting.asked, sum(found.frames.nbytes for found in frames._kept.values())


class TestWhatIsSent:
    def test_a_clip_is_decoded_and_sent_once_while_there_is_room(self, regions: StageData) -> None:
        clips = {media_key(samples[0]) for step in range(regions.total_steps) for samples in regions.batch(step)}
        found, held = asked(regions, 1 << 30)
        assert len(clips) > 4 and sorted(found) == sorted(clips)
        assert held == len(clips) * CLIP_BYTES

    def test_memory_is_bounded_and_only_clips_without_room_are_sent_again(self, regions: StageData) -> None:
        found, held = asked(regions, 2 * CLIP_BYTES + 5)
        assert held == 2 * CLIP_BYTES
        first_two = list(dict.fromkeys(media_key(s[0]) for step in range(3) for s in regions.batch(step)))[:2]
        assert [found.count(key) for key in first_two] == [1, 1]
        rows = sum(media_key(s[0]) not in first_two for step in range(regions.total_steps) for s in regions.batch(step))
        assert len(found) == rows + 2

    def test_workers_are_ahead_by_so_many_steps_and_no_more(self, regions: StageData) -> None:
        counting = Counting(regions, Frames(small_backbone(), keep=False), workers=2, prefetch=2)
        counting.asked = []
        with counting:
            counting.rows(0)
            assert len(counting.asked) == (2 * 2 + 1) * stage().batch_size

    def test_samples_are_packed_once_an_epoch_though_workers_are_ahead_in_the_next_one(
        self, films: list[Sample], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        packed: list[int] = []
        pack = data_module.pack_by_media
        monkeypatch.setattr(
            data_module, "pack_by_media", lambda *args, epoch, **more: packed.append(epoch) or pack(*args, epoch=epoch, **more)
        )
        data = StageData(by_task(films), stage(steps=40, batch_size=2), seed=3)
        with source(data, workers=2, prefetch=2) as rows:
            for step in range(40):
                rows.rows(step)
                # as the loop asks again for what a step was
                data.batch(step)
        assert len(set(packed)) > 4 and packed == sorted(set(packed))

    def test_what_is_kept_is_no_shared_memory(self, regions: StageData) -> None:
        """Each piece of it would hold an open file."""
        frames = Frames(small_backbone())
        with RowSource(regions, frames, workers=1) as rows:
            rows.rows(0)
        assert frames._kept and not any(found.frames.is_shared() for found in frames._kept.values())

    def test_a_request_is_small_whatever_the_sample_holds(self, films: list[Sample]) -> None:
        heavy = films[0].model_copy(update={"meta": {"raw": "x" * 100_000}}).at(films[0].root)
        request = ClipRequest.of(2, heavy)
        assert len(pickle.dumps(request)) < 3000
        assert (request.sample.id, request.sample.media_path) == (heavy.id, heavy.media_path)

    @pytest.mark.parametrize("family", [*FAMILIES, "nano"])
    def test_a_loader_takes_no_weights_along_and_resizes_alike(
        self, tiny_base: Path, tmp_path: Path, films: list[Sample], family: str
    ) -> None:
        backbone = load_backbone(str(tiny_base if family == "nano" else write_tiny(family, tmp_path)), num_frames=5)
        loader = ClipLoader(backbone)
        sent = pickle.dumps(loader)
        assert len(sent) < 50_000 < sum(weight.nbytes for weight in backbone.parameters())
        away, here = pickle.loads(sent).clip(films[0]), loader.clip(films[0])
        assert torch.equal(away.frames, here.frames) and (away.clip, away.stamp) == (here.clip, here.stamp)
        assert here.frames.shape == (5, 3, backbone.image_size, backbone.image_size)
        assert here.frames.nbytes == loader.clip_bytes and here.frames.is_contiguous()

    def test_clips_that_were_awaited_are_not_waited_for_after_a_jump(self, regions: StageData) -> None:
        frames = Frames(small_backbone(), limit_bytes=1 << 20)
        with RowSource(regions, frames, workers=2) as rows:
            rows.rows(0)
        assert not frames._awaited
        assert frames._free == (1 << 20) - sum(found.frames.nbytes for found in frames._kept.values())


def left_out(data: StageData, run: Path, workers: int, limit: str = "") -> tuple[list[list[Any]], list[dict[str, Any]], DropList]:
    drops = DropList(run, "2.region", samples=data.count, limit=Limit(limit))
    with source(data, workers=workers, drops=drops) as rows:
        found = [[shown(row) for row in rows.rows(step)] for step in range(data.total_steps)]
    return found, [json.loads(line) for line in drops.path.read_text().splitlines()], drops


class TestBadFiles:
    @pytest.mark.parametrize("workers", [0, 2])
    def test_their_samples_are_left_out_and_nothing_else_moves(
        self, damaged: Callable[..., list[Sample]], tmp_path: Path, workers: int
    ) -> None:
        samples = damaged(2)
        data = StageData(by_task(samples), stage(), seed=3)
        bad = {sample.media.path for sample in samples if sample.media_path.stat().st_size == 40}
        assert len(bad) == 2
        found, lines, drops = left_out(data, tmp_path, workers)
        frames = Frames(small_backbone())
        for step, rows in enumerate(found):
            planned = data.batch(step)
            assert rows == [shown(frames.row(group)) for group in planned if group[0].media.path not in bad]
            ids = [sample.id for group in planned if group[0].media.path in bad for sample in group]
            assert [line["sample"] for line in lines if line["step"] == step + 1] == ids
            assert drops.count(step + 1) == len(ids)
        assert {line["stage"] for line in lines} == {"2.region"} and {Path(line["file"]).name for line in lines} == {
            Path(path).name for path in bad
        }
        assert all("expected a file with a video stream, got 'no streams'" in line["reason"] for line in lines)

    def test_the_list_is_the_same_with_workers(self, damaged: Callable[..., list[Sample]], tmp_path: Path) -> None:
        data = StageData(by_task(damaged(3)), stage(), seed=3)
        lists = []
        for workers in (0, 1, 3):
            (tmp_path / str(workers)).mkdir()
            lists.append(left_out(data, tmp_path / str(workers), workers)[:2])
        assert lists[0] == lists[1] == lists[2]

    @pytest.mark.parametrize("workers", [0, 2])
    def test_a_batch_of_bad_clips_alone_is_empty(self, damaged: Callable[..., list[Sample]], tmp_path: Path, workers: int) -> None:
        samples = damaged(99)
        found, lines, _ = left_out(StageData(by_task(samples), stage(steps=3), seed=0), tmp_path, workers)
        assert found == [[], [], []] and len({line["step"] for line in lines}) == 3

    @pytest.mark.parametrize("workers", [0, 2])
    def test_more_than_allowed_end_the_job_with_the_path_of_the_list(
        self, damaged: Callable[..., list[Sample]], tmp_path: Path, workers: int
    ) -> None:
        data = StageData(by_task(damaged(3)), stage(), seed=3)
        with pytest.raises(TPOError) as caught:
            left_out(data, tmp_path, workers, "1")
        said = str(caught.value)
        assert f"of {data.count} samples were left out because their clips cannot be read, more than --max-dropped 1." in said
        assert said.endswith(f"They are listed in {tmp_path / 'dropped.jsonl'}.") and said.startswith("stage 2.region, step ")
        assert len({json.loads(line)["sample"] for line in (tmp_path / "dropped.jsonl").read_text().splitlines()}) >= 2

    def test_a_sample_counts_once_however_often_it_is_missed(self, damaged: Callable[..., list[Sample]], tmp_path: Path) -> None:
        data = StageData(by_task(damaged(1)), stage(steps=30), seed=3)
        first = len({s.id for s in data.whole.samples["region"] if s.media_path.stat().st_size == 40})
        _, lines, _ = left_out(data, tmp_path, 0, str(first))
        assert len(lines) > first == len({line["sample"] for line in lines})

    @pytest.mark.parametrize("workers", [0, 2])
    def test_unless_skipped_the_job_ends_with_sample_and_file(self, damaged: Callable[..., list[Sample]], workers: int) -> None:
        samples = damaged(99)
        data = StageData(by_task(samples), stage(), seed=3)
        first = data.batch(2)[0][0]
        with source(data, workers=workers) as rows, pytest.raises(TPOError) as caught:
            rows.rows(2)
        said = str(caught.value)
        assert said.startswith(f"stage 2.region, step 3, sample {first.id}: {first.media_path}: expected")
        assert said.endswith("--on-bad skip leaves such samples out.") and "\n" not in said

    def test_a_resumed_run_lists_and_counts_as_if_it_had_not_stopped(self, damaged: Callable[..., list[Sample]], tmp_path: Path) -> None:
        data = StageData(by_task(damaged(2)), stage(), seed=3)
        left_out(data, tmp_path, 0)
        whole = (tmp_path / "dropped.jsonl").read_text()
        (tmp_path / "dropped.jsonl").write_text('{"stage": "1", "step": 9, "sample": "x", "file": "f", "reason": "r"}\n' + whole)
        drops = DropList(tmp_path, "2.region", samples=data.count, limit=Limit(""))
        drops.keep_until(6)
        with source(data, workers=1, drops=drops) as rows:
            for step in range(6, data.total_steps):
                rows.rows(step)
        first, rest = (tmp_path / "dropped.jsonl").read_text().split("\n", 1)
        assert json.loads(first)["stage"] == "1" and rest == whole
        assert sum(drops.count(step + 1) for step in range(data.total_steps)) == len(whole.splitlines())

    def test_lists_of_several_processes_are_one(self, tmp_path: Path, films: list[Sample]) -> None:
        error = UnreadableClip("a.mp4", expected="a video", got="nothing", sample_id="s", file="a.mp4")
        one, other = (DropList(tmp_path, "1", samples=10, limit=Limit("20%")) for _ in range(2))
        one.add(4, films[:1], error)
        other.add(4, films[1:2], error)
        assert one.count(4) == other.count(4) == 2
        with pytest.raises(TPOError, match=r"stage 1, step 5: 3 of 10 samples .* --max-dropped 20%"):
            one.add(5, films[2:3], error)

    @pytest.mark.parametrize("workers", [0, 1])
    def test_missing_features_leave_out_the_row_but_not_the_clip(self, films: list[Sample], tmp_path: Path, workers: int) -> None:
        files = FeatureFiles(folders=(FeatureFolder(folder=str(tmp_path / "absent"), width=4),), step_sec=1.0)
        frames = Frames(small_backbone(), features={"region": files})
        drops = DropList(tmp_path, "2.region", samples=12, limit=Limit(""))
        with RowSource(StageData(by_task(films), stage(steps=2), 0), frames, workers=workers, drops=drops) as rows:
            assert rows.rows(0) == []
            assert not rows._unreadable
        assert "features" in json.loads(drops.path.read_text().splitlines()[0])["reason"]


@pytest.mark.parametrize("kind", [UnreadableClip, UnreadableFeatures])
def test_unreadable_clips_keep_all_they_know_on_their_way(kind: type[UnreadableClip]) -> None:
    error = kind("a.mp4", expected="a video", got="no streams", hint="Look.", sample_id="s1", file="b/a.mp4")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind and str(back) == str(error) == "a.mp4: expected a video, got 'no streams'. Look."
    assert (back.sample_id, back.file) == ("s1", "b/a.mp4")


def test_any_error_of_a_decoder_is_one_of_the_clip(films: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OverflowError("too long\nand more")

    monkeypatch.setattr("tpo_lab.video.read_clip", fail)
    with pytest.raises(UnreadableClip, match=r"expected media that can be read, got 'OverflowError: too long'\.$") as caught:
        Frames(small_backbone()).row(films[:1])
    assert caught.value.sample_id == films[0].id and caught.value.file == str(films[0].media_path)
