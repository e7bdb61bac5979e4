"""Frames come back with their own times, upright, and never silently wrong."""

from __future__ import annotations

import struct
import subprocess
import sys
import wave
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tpo_lab.errors import UsageError
from tpo_lab.video import READERS, clip_writer, displayed_frames, open_source, read_clip, segment_centres, write_clip, writer

HEIGHT, WIDTH = 48, 64
OPEN_GOP = "open-gop=1:keyint=8:bframes=3:b-adapt=0:scenecut=0"
CLOSED_GOP = "keyint=8:bframes=3:b-adapt=0:scenecut=0"


def grey(number: int) -> np.ndarray:
    """A frame whose brightness tells its number, so that the decoded pixels say which frame they are."""
    return np.full((HEIGHT, WIDTH, 3), 20 + 7 * number, dtype=np.uint8)


def numbers(frames: np.ndarray) -> list[int]:
    return np.round((frames.mean(axis=(1, 2, 3)) - 20) / 7).astype(int).tolist()


def texture(count: int) -> list[np.ndarray]:
    """Sliding smooth noise: packets big enough to be damaged in the middle."""
    noise = np.random.default_rng(0).integers(0, 255, (12, 40, 3), dtype=np.uint8)
    wide = np.asarray(Image.fromarray(noise).resize((160, HEIGHT), Image.Resampling.BICUBIC))
    return [np.ascontiguousarray(wide[:, 2 * i : 2 * i + WIDTH]) for i in range(count)]


def encode(
    path: Path, pictures: Sequence[np.ndarray], *, stamps_ms: Sequence[int] = (), codec: str = "libx264", params: str = CLOSED_GOP
) -> Path:
    """Write frames 100 ms apart, or at the given stamps."""
    options = {"x264-params": params} if codec == "libx264" else {}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000) if stamps_ms else Fraction(1, 10)
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.time_base = stream.codec_context.time_base
            frame.pts = stamps_ms[number] if stamps_ms else number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def packet_place(path: Path, number: int) -> tuple[int, int]:
    """First byte and length of the packet that holds frame `number`."""
    with av.open(str(path)) as container:
        packet = sorted((p for p in container.demux(video=0) if p.size), key=lambda p: p.pts)[number]
        return packet.pos, packet.size


def damage(path: Path, number: int) -> float:
    """Break the length field of the packet that holds frame `number` of a clip of 10 frames per second; returns its time."""
    position, _ = packet_place(path, number)
    content = bytearray(path.read_bytes())
    content[position : position + 4] = b"\x7f\xff\xff\xff"
    path.write_bytes(content)
    return number / 10


@pytest.fixture
def counting(tmp_path: Path) -> Path:
    """30 numbered frames in 3 s, with B-frames and a keyframe every 8 frames."""
    return encode(tmp_path / "counting.mp4", [grey(i) for i in range(30)])


# Sampling


def test_segment_centres_are_those_computed_by_hand() -> None:
    assert segment_centres(2.0, 6.0, 4).tolist() == [2.5, 3.5, 4.5, 5.5]
    assert segment_centres(3.0, 3.0, 2).tolist() == [3.0, 3.0]


def test_displayed_frames_holds_each_frame_until_the_next() -> None:
    times = np.array([0.0, 0.1, 0.5])
    assert displayed_frames(times, np.array([-1.0, 0.0, 0.09, 0.1, 0.49, 0.5, 99.0])).tolist() == [0, 0, 0, 1, 1, 2, 2]


@given(st.lists(st.integers(0, 1000), min_size=1, unique=True), st.lists(st.integers(-10, 1010), min_size=1))
def test_displayed_frames_equals_a_linear_search(stamps: list[int], at: list[int]) -> None:
    times = sorted(stamps)
    expected = [max((i for i, time in enumerate(times) if time <= moment), default=0) for moment in at]
    assert displayed_frames(np.array(times) / 7, np.array(at) / 7).tolist() == expected


@given(st.integers(1, 50), st.integers(1, 40), st.integers(1, 30))
def test_a_sample_time_equal_to_a_stamp_shows_that_frame(frames: int, factor: int, rate: int) -> None:
    times = np.arange(frames) / rate
    centres = segment_centres(0.0, frames * factor / rate, frames * factor) - 0.5 / rate
    assert displayed_frames(times, centres).tolist() == np.minimum(np.arange(frames * factor), frames - 1).tolist()


# Times


def test_read_clip_shows_the_frame_on_display_at_each_segment_centre(counting: Path) -> None:
    clip = read_clip(counting, num_frames=4)
    assert clip.times_sec == pytest.approx([0.3, 1.1, 1.8, 2.6])
    assert numbers(clip.frames) == [3, 11, 18, 26]
    assert clip.frames.shape == (4, HEIGHT, WIDTH, 3) and clip.frames.dtype == np.uint8
    assert (clip.start_sec, clip.end_sec, clip.duration_sec) == pytest.approx((0.0, 3.0, 3.0))
    assert (clip.source, clip.width, clip.height, clip.dropped) == (str(counting), WIDTH, HEIGHT, ())


CONTAINERS = [
    pytest.param("closed.mp4", "libx264", CLOSED_GOP, id="b-frames"),
    pytest.param("open.mp4", "libx264", OPEN_GOP, id="open-gop-mp4"),
    pytest.param("open.mkv", "libx264", OPEN_GOP, id="open-gop-mkv"),
    pytest.param("open.ts", "libx264", OPEN_GOP, id="open-gop-ts-with-offset"),
    pytest.param("intra.mp4", "libx264", "keyint=1", id="all-keyframes"),
    pytest.param("stampless.avi", "libx264", CLOSED_GOP, id="avi-without-presentation-stamps"),
    pytest.param("raw.h264", "libx264", CLOSED_GOP, id="raw-without-any-stamps"),
    pytest.param("hidden.webm", "libvpx", "", id="vp8-with-hidden-frames"),
]


@pytest.mark.parametrize(("name", "codec", "params"), CONTAINERS)
def test_every_frame_is_found_by_its_own_time(tmp_path: Path, name: str, codec: str, params: str) -> None:
    path = encode(tmp_path / name, [grey(i) for i in range(30)], codec=codec, params=params)
    together = read_clip(path, num_frames=30)
    assert numbers(together.frames) == list(range(30))
    assert together.times_sec == pytest.approx(np.arange(30) / 10, abs=1e-3)
    for number in (0, 7, 8, 9, 13, 29):
        alone = read_clip(path, num_frames=1, start_sec=number / 10, end_sec=number / 10)
        assert numbers(alone.frames) == [number]


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_variable_rate_and_start_offset_keep_true_times(tmp_path: Path, name: str) -> None:
    stamps_ms = [1500, 1600, 1700, 3500, 3540, 5000]
    path = encode(tmp_path / name, [grey(i) for i in range(6)], stamps_ms=stamps_ms)
    clip = read_clip(path, num_frames=7, start_sec=0.0, end_sec=3.5)
    assert numbers(clip.frames) == [2, 2, 2, 2, 4, 4, 4]
    assert clip.times_sec == pytest.approx([0.2, 0.2, 0.2, 0.2, 2.04, 2.04, 2.04], abs=1e-3)
    assert clip.duration_sec > 3.5


def test_a_window_is_cut_at_the_end_and_says_so(counting: Path) -> None:
    clip = read_clip(counting, num_frames=2, start_sec=2.0, end_sec=77.0)
    assert (clip.start_sec, clip.end_sec) == pytest.approx((2.0, 3.0))
    assert numbers(clip.frames) == [22, 27]


def test_too_few_frames_repeat(tmp_path: Path) -> None:
    path = encode(tmp_path / "one.mp4", [grey(9)])
    clip = read_clip(path, num_frames=3)
    assert numbers(clip.frames) == [9, 9, 9]
    assert clip.times_sec.tolist() == [0.0, 0.0, 0.0] and clip.duration_sec == pytest.approx(0.1)


def test_size_resizes_frames_and_keeps_the_original_size_on_record(counting: Path) -> None:
    clip = read_clip(counting, num_frames=2, size=(10, 30))
    assert clip.frames.shape == (2, 10, 30, 3)
    assert (clip.width, clip.height) == (WIDTH, HEIGHT) and numbers(clip.frames) == [7, 22]


# Rotation


@pytest.mark.parametrize(("matrix", "turns"), [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)])
def test_rotation_metadata_turns_the_pixels(tmp_path: Path, matrix: tuple[int, ...], turns: int) -> None:
    picture = texture(1)[0]
    plain = write_clip(tmp_path / "plain.mp4", [picture, picture], 10)
    content = bytearray(plain.read_bytes())
    # The track header holds nine 32-bit numbers, a b u c d v x y w, 40 bytes after its version field.
    place = content.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    content[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    turned_path = tmp_path / "turned.mp4"
    turned_path.write_bytes(content)
    turned = read_clip(turned_path, num_frames=1)
    assert np.array_equal(turned.frames[0], np.rot90(read_clip(plain, num_frames=1).frames[0], k=turns))
    assert (turned.height, turned.width) == turned.frames.shape[1:3] == ((HEIGHT, WIDTH) if turns == 2 else (WIDTH, HEIGHT))


# Damage


def test_damage_is_refused_dropped_or_warned_of(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", texture(32))
    pristine = read_clip(path, num_frames=32).frames
    at_sec = damage(path, 12)
    with pytest.raises(UsageError, match=rf"the frame at {at_sec:.3f} s does not decode .*on_corrupt=\"drop\""):
        read_clip(path, num_frames=1, start_sec=at_sec, end_sec=at_sec)
    clip = read_clip(path, num_frames=32, on_corrupt="drop")
    shown = np.round(clip.times_sec * 10).astype(int)
    assert np.array_equal(clip.frames, pristine[shown])
    assert shown[:8].tolist() == list(range(8)) and shown[16:].tolist() == list(range(16, 32))
    assert len(clip.dropped) == (shown != np.arange(32)).sum() > 1
    assert any("predicted from a frame that does not decode" in note for note in clip.dropped)
    with pytest.warns(UserWarning, match=r"a\.mp4: the frame at"):
        warned = read_clip(path, num_frames=32, on_corrupt="warn")
    assert np.array_equal(warned.frames, clip.frames)


def test_damage_outside_the_frames_that_are_needed_is_no_reason_to_refuse(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", texture(32))
    damage(path, 12)
    assert read_clip(path, num_frames=4, start_sec=1.6, end_sec=3.2).dropped == ()
    assert read_clip(path, num_frames=4, end_sec=0.7).dropped == ()


def test_damage_in_a_group_spares_the_next_even_where_groups_are_open(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", texture(32), params=OPEN_GOP)
    pristine = read_clip(path, num_frames=32).frames
    damage(path, 9)
    clip = read_clip(path, num_frames=32, on_corrupt="drop")
    shown = np.round(clip.times_sec * 10).astype(int)
    assert np.array_equal(clip.frames, pristine[shown])
    assert shown[-8:].tolist() == list(range(24, 32)) and len(clip.dropped) >= 1


@pytest.mark.parametrize("number", [3, 10, 29])
def test_flipped_bytes_that_the_decoder_notices_never_reach_the_clip(tmp_path: Path, number: int) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, HEIGHT, WIDTH, 3), dtype=np.uint8)
    # Without arithmetic coding, whose decoder makes some picture of any bytes: that damage nobody can see (read_clip says so).
    path = encode(tmp_path / "a.mp4", noise, params=f"{CLOSED_GOP}:cabac=0")
    pristine = read_clip(path, num_frames=40).frames
    position, size = packet_place(path, number)
    content = bytearray(path.read_bytes())
    for place in np.random.default_rng(number).integers(position + size // 3, position + size, 40):
        content[place] ^= 0xFF
    path.write_bytes(content)
    clip = read_clip(path, num_frames=40, on_corrupt="drop")
    assert len(clip.dropped) >= 1
    assert np.array_equal(clip.frames, pristine[np.round(clip.times_sec * 10).astype(int)])


def test_damage_in_the_first_group_shows_the_first_good_frame(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", texture(24))
    damage(path, 0)
    clip = read_clip(path, num_frames=2, end_sec=0.4, on_corrupt="drop")
    assert clip.times_sec == pytest.approx([0.8, 0.8])


def test_a_file_in_which_no_frame_decodes_is_refused_under_every_policy(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", texture(5))
    damage(path, 0)
    with pytest.raises(UsageError, match=r"at least one frame that decodes, got '5 corrupt frames: the frame at 0\.0"):
        read_clip(path, num_frames=2, end_sec=0.25, on_corrupt="drop")


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_truncated_files_are_used_as_far_as_they_decode(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "mp4":
        write_clip(path, texture(40), 10)  # with its header in front
    else:
        encode(path, texture(40), codec="libx264" if suffix == "mkv" else "mpeg4")
    pristine = read_clip(path, num_frames=40).frames
    position, size = packet_place(path, 22)
    path.write_bytes(path.read_bytes()[: position + size // 2])
    with pytest.raises(UsageError, match=r"a complete file, got 'truncated: .*4"):
        read_clip(path, num_frames=4)
    clip = read_clip(path, num_frames=40, on_corrupt="drop")
    assert "truncated" in clip.dropped[0]
    assert 2.0 < clip.duration_sec < 2.8 and clip.end_sec == clip.duration_sec
    assert np.array_equal(clip.frames, pristine[np.round(clip.times_sec * 10).astype(int)])
    assert "truncated" in read_clip(path, num_frames=3, end_sec=0.5).dropped[0]


# Images


def test_images_of_a_folder_come_in_natural_order(tmp_path: Path) -> None:
    for number in (1, 2, 10):
        Image.fromarray(grey(number)).save(tmp_path / f"frame{number}.png")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_bytes(b"no image")
    clip = read_clip(tmp_path, num_frames=3, fps=2.0)
    assert numbers(clip.frames) == [1, 2, 10] and clip.times_sec.tolist() == [0.0, 0.5, 1.0] and clip.duration_sec == 1.5
    assert numbers(read_clip(f"{tmp_path}/frame1*.png", num_frames=2).frames) == [1, 10]
    assert read_clip(tmp_path, num_frames=3).duration_sec == 3.0


def test_one_image_is_one_frame_with_exact_pixels(tmp_path: Path) -> None:
    picture = texture(1)[0]
    path = tmp_path / "a[1].PNG"
    Image.fromarray(picture).convert("RGBA").save(path)
    clip = read_clip(path, num_frames=2)
    assert np.array_equal(clip.frames, np.stack([picture, picture])) and (clip.width, clip.height) == (WIDTH, HEIGHT)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    picture = texture(1)[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_clip(tmp_path / "a.png", num_frames=1).frames[0], np.rot90(picture, k=-1))


def test_broken_images_follow_the_policy(tmp_path: Path) -> None:
    for number in range(4):
        Image.fromarray(texture(4)[number]).save(tmp_path / f"{number}.png")
    whole = (tmp_path / "2.png").read_bytes()
    (tmp_path / "2.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match=r"the frame at 2\.000 s 2\.png does not decode"):
        read_clip(tmp_path, num_frames=4)
    clip = read_clip(tmp_path, num_frames=4, on_corrupt="drop")
    assert clip.times_sec.tolist() == [0.0, 1.0, 1.0, 3.0] and len(clip.dropped) == 1
    with pytest.raises(UsageError, match="at least one frame that decodes, got '1 corrupt"):
        read_clip(tmp_path / "2.png", num_frames=1, on_corrupt="drop")


def test_images_of_several_sizes_need_one_size(tmp_path: Path) -> None:
    Image.new("RGB", (6, 4)).save(tmp_path / "0.png")
    Image.new("RGB", (8, 4)).save(tmp_path / "1.png")
    with pytest.raises(UsageError, match=r"got \[\(4, 6\), \(4, 8\)\]. Give size="):
        read_clip(tmp_path, num_frames=2)
    assert read_clip(tmp_path, num_frames=2, size=(4, 6)).frames.shape == (2, 4, 6, 3)


# Refusals


def test_unreadable_paths_are_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "garbage.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "folder").mkdir()
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(16000))
    refusals = {
        "missing.mp4": "got 'no such file'",
        "empty.mp4": "The file is empty",
        "garbage.mp4": "got 'Invalid data found",
        "folder": "got 'a directory without any'",
        "folder/*.jpg": "got 'a pattern that matches none'",
        "sound.wav": "a file with a video stream, got 'audio'",
    }
    for name, message in refusals.items():
        with pytest.raises(UsageError, match=message) as caught:
            read_clip(tmp_path / name, num_frames=1, on_corrupt="drop")
        assert str(caught.value).startswith(str(tmp_path / name)) and "\n" not in str(caught.value)


def test_unknown_names_are_refused_with_the_valid_ones(counting: Path) -> None:
    assert list(READERS) == ["pyav"]
    with pytest.raises(UsageError, match="reader: expected one of pyav, got 'decord'"):
        read_clip(counting, num_frames=1, reader="decord")
    with pytest.raises(UsageError, match=r"expected one of drop, raise, warn, got 'rais'\. Did you mean 'raise'"):
        read_clip(counting, num_frames=1, on_corrupt="rais")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_frames": 0}, "num_frames: expected at least 1, got 0"),
        ({"start_sec": -0.5}, r"start_sec: .* got -0\.5"),
        ({"start_sec": 3.0}, r"start_sec: .* at 3\.000 s, got 3\.0"),
        ({"start_sec": float("nan")}, "start_sec: .* got nan"),
        ({"start_sec": 2.0, "end_sec": 1.0}, r"end_sec: .* start_sec \(2\.0 s\), got 1\.0"),
        ({"end_sec": float("nan")}, "end_sec: .* got nan"),
        ({"size": (0, 4)}, r"size: .* got \(0, 4\)"),
        ({"fps": 0.0}, r"fps: .* got 0\.0"),
    ],
)
def test_arguments_out_of_range_are_refused(counting: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_clip(counting, **{"num_frames": 2, **arguments})


# Writing


def test_write_then_read_is_nearly_the_same_picture(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:64, :64]
    clip = np.full((24, 64, 64, 3), (40, 60, 90), dtype=np.uint8)
    for number, picture in enumerate(clip):
        picture[(rows - 30) ** 2 + (columns - 10 - 2 * number) ** 2 < 64] = (220, 50, 40)
        picture[40:56, 4:20] = (30, 170, 80)
    path = write_clip(tmp_path / "new" / "folder" / "a.mp4", clip, 8)
    back = read_clip(path, num_frames=24)
    error = (back.frames.astype(float) - clip) ** 2
    psnr = 10 * np.log10(255**2 / error.mean(axis=(1, 2, 3)))
    assert psnr.min() > 29, psnr.min()
    assert back.times_sec == pytest.approx(np.arange(24) / 8) and back.duration_sec == pytest.approx(3.0)
    flat = error[:, 43:53, 7:17].mean() ** 0.5
    assert flat < 3, "colours away from edges must survive: the matrix of the writer is the reader's"


def test_write_clip_gives_the_same_bytes_twice_and_leaves_nothing_else(tmp_path: Path) -> None:
    first, second = write_clip(tmp_path / "a.mp4", texture(6), 7.5), write_clip(tmp_path / "b.mp4", np.stack(texture(6)), 7.5)
    assert first.read_bytes() == second.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


def test_write_clip_that_fails_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "a.mp4", texture(3), 5)
    before = path.read_bytes()

    def break_off(partial: Path, *_: object) -> None:
        partial.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(writer, "_encode", break_off)
    with pytest.raises(OSError, match="disk full"):
        write_clip(path, texture(3), 5)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_write_clip_falls_back_to_mpeg4_without_x264(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    path = write_clip(tmp_path / "a.mp4", [grey(i) for i in range(12)], 10)
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"
    back = read_clip(path, num_frames=12)
    assert back.frames.mean(axis=(1, 2, 3)) == pytest.approx([20 + 7 * i for i in range(12)], abs=4)


@pytest.mark.parametrize("codecs", [{"libx264", "mpeg4"}, {"mpeg4"}], ids=["x264", "mpeg4"])
def test_clip_writer_keeps_the_time_of_every_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codecs: set[str]) -> None:
    monkeypatch.setattr(av, "codecs_available", codecs & set(av.codecs_available))
    times = [0.0, 0.04, 0.08, 0.5, 0.52, 1.7, 3.0, 3.04]
    with clip_writer(tmp_path / "new" / "a.mp4", 2.5) as add:
        for number, time in enumerate(times):
            add(grey(number), time)
        assert [file.suffix for file in (tmp_path / "new").iterdir()] == [".mp4"] and not (tmp_path / "new" / "a.mp4").exists()
    source = open_source(tmp_path / "new" / "a.mp4")
    assert source.times_sec == pytest.approx(times, abs=1e-4)
    assert source.duration_sec == pytest.approx(3.04 + 1 / 2.5, abs=1e-3) and source.notes == ()
    with av.open(str(tmp_path / "new" / "a.mp4")) as container:
        assert container.duration / 1e6 == pytest.approx(3.44, abs=2e-3), "a player shows the last frame to its end"
    back = read_clip(tmp_path / "new" / "a.mp4", num_frames=1, start_sec=1.9, end_sec=1.9)
    assert back.frames.mean() == pytest.approx(20 + 7 * 5, abs=4)


def test_clip_writer_of_one_frame_and_of_none(tmp_path: Path) -> None:
    with clip_writer(tmp_path / "a.mp4", 4) as add:
        add(grey(3), 0.0)
    source = open_source(tmp_path / "a.mp4")
    assert source.times_sec.tolist() == [0.0] and source.duration_sec == pytest.approx(0.25)
    with pytest.raises(UsageError, match="at least one frame"), clip_writer(tmp_path / "b.mp4", 4):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_clip_writer_that_is_broken_off_keeps_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    before = write_clip(tmp_path / "a.mp4", texture(3), 5).read_bytes()
    for written in (0, 1, 20):
        with pytest.raises(error), clip_writer(tmp_path / "a.mp4", 5) as add:
            for number in range(written):
                add(grey(number), number / 5)
            raise error
    with pytest.raises(UsageError, match="even height"), clip_writer(tmp_path / "a.mp4", 5) as add:
        add(np.zeros((5, 8, 3), np.uint8), 0.0)
    assert (tmp_path / "a.mp4").read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize(
    ("frames", "fps", "name", "message"),
    [
        (np.zeros((2, 5, 8, 3), np.uint8), 4, "a.mp4", r"got \(5, 8\). Pad them to \(6, 8\)"),
        (np.zeros((2, 4, 8, 3)), 4, "a.mp4", "uint8 pixels, got 'float64'"),
        (np.zeros((2, 4, 8), np.uint8), 4, "a.mp4", r"got \[\(4, 8\)\]"),
        ([], 4, "a.mp4", r"at least one frame.* got \[\]"),
        ([np.zeros((4, 8, 3), np.uint8), np.zeros((6, 8, 3), np.uint8)], 4, "a.mp4", r"got \[\(4, 8, 3\), \(6, 8, 3\)\]"),
        (np.zeros((2, 4, 8, 3), np.uint8), 0, "a.mp4", "fps: .* got 0"),
        (np.zeros((2, 4, 8, 3), np.uint8), 4, "a.avi", r"ends in \.mp4, got '.*a\.avi'"),
    ],
)
def test_write_clip_refuses_what_it_cannot_write(tmp_path: Path, frames: np.ndarray, fps: float, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        write_clip(tmp_path / name, frames, fps)
    assert list(tmp_path.iterdir()) == []


def test_importing_the_module_loads_no_decoder() -> None:
    code = "import sys, tpo_lab.video, tpo_lab.drawing; print(*sorted({'av', 'PIL', 'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    assert done.stdout.strip() == ""


# Real files


def test_every_real_video_reads_with_rising_times(real: Path) -> None:
    for path in sorted((real / "videos").iterdir()):
        clip = read_clip(path, num_frames=3, end_sec=0.1, size=(24, 40))
        assert clip.frames.mean() > 5 and clip.dropped == (), path.name
        assert (np.diff(clip.times_sec) >= 0).all() and clip.duration_sec > clip.times_sec[-1], path.name


@pytest.mark.parametrize(("angle", "displayed"), [(0, (568, 320)), (90, (320, 568)), (180, (568, 320)), (270, (320, 568))])
def test_real_rotated_videos_come_upright(angle: int, displayed: tuple[int, int], real: Path) -> None:
    clip = read_clip(real / "videos" / f"decord_video_{angle}.mov", num_frames=3)
    assert (clip.width, clip.height) == displayed
    assert clip.times_sec == pytest.approx([0, 1 / 30, 2 / 30], abs=1e-4)


def test_real_corrupted_video_behaves_as_documented(real: Path) -> None:
    path = real / "videos" / "decord_corrupted.mp4"
    assert read_clip(path, num_frames=5, end_sec=2.9, size=(36, 64)).dropped == ()
    with pytest.raises(UsageError, match="does not decode"):
        read_clip(path, num_frames=2, size=(36, 64))
    clip = read_clip(path, num_frames=5, start_sec=2.7, end_sec=3.7, size=(36, 64), on_corrupt="drop")
    assert clip.times_sec == pytest.approx([2.8, 2.8, 3.2, 3.2, 3.2])
    assert [note.split()[3] for note in clip.dropped] == ["3.000", "3.400", "3.600"]


def test_real_image_folders_read_by_folder_and_pattern(real: Path) -> None:
    by_folder, by_pattern = (read_clip(path, num_frames=4, size=(36, 48)) for path in (real / "bag_frames", real / "bag_frames" / "*.jpg"))
    assert np.array_equal(by_folder.frames, by_pattern.frames) and (by_folder.width, by_folder.height) == (480, 360)


def test_write_clip_gives_the_same_bytes_every_time(tmp_path):
    pixels = np.random.default_rng(3).integers(0, 255, (6, 64, 64, 3), dtype=np.uint8)
    smooth = np.cumsum(pixels, axis=0, dtype=np.uint8)
    written = {write_clip(tmp_path / f"{number}.mp4", smooth, 4.0).read_bytes() for number in range(8)}
    assert len(written) == 1
