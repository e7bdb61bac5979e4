"""The sample schema: every rule is broken once, files round-trip, and no bytes make the reader raise anything but a problem."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tpo_lab.errors import UsageError
from tpo_lab.sample import (
    SCHEMA,
    BoxPrompt,
    Media,
    PointPrompt,
    Problem,
    RegionTarget,
    Sample,
    ScribblePrompt,
    Turn,
    iter_samples,
    markers,
    mentions,
    read,
    validate,
    write,
)

RECORD = {
    "id": "clip-7",
    "source": "world",
    "split": "train",
    "media": {"path": "clips/a.mp4", "start_sec": 1.5, "end_sec": 9.5},
    "conversation": [
        {"role": "user", "text": "Where is <prompt:0>, beside <prompt:1> and <prompt:2>?"},
        {"role": "assistant", "text": "Here <region>, through <mask> and <track>."},
        {"role": "user", "text": "When?"},
        {"role": "assistant", "text": "Then <temporal>, at this depth <depth>."},
    ],
    "prompts": [
        {"type": "box", "time_sec": 0.0, "xyxy": [13, 403, 173, 586]},
        {"type": "point", "time_sec": 2.0, "xy": [20.5, 30]},
        {"type": "scribble", "xys": [[1, 2], [3, 4], [5, 6]]},
    ],
    "targets": {
        "region": [{"time_sec": 0.0, "xyxy": [0, 1, 5, 9]}, {"time_sec": 0.0, "xyxy": [2, 2, 3, 8]}],
        "temporal": {"windows_sec": [[2.0, 6.0], [7, 8]], "saliency": {"step_sec": 2.0, "scores": [0, 3.5, -1, 4]}},
        "mask": {"times_sec": [0, 0.5], "rle": [{"size": [3, 5], "counts": "28a1"}, None]},
        "track": {"times_sec": [0, 0.5, 1], "xyxy": [[1, 2, 3, 4], None, [1, 2, 3, 5]]},
        "depth": {"metres": [1.5, None], "note": None},
    },
    "meta": {"kind": "where", "tags": ["motion-only"], "difficulty": 3, "none": None},
}


def changed(path: str, value: object) -> dict:
    """RECORD with the value at a slash path replaced; Ellipsis removes it."""
    record = copy.deepcopy(RECORD)
    *way, last = [int(step) if step.isdigit() else step for step in path.split("/")]
    node = record
    for step in way:
        node = node[step]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return record


def save(folder: Path, *lines: object) -> Path:
    path = folder / "samples.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return path


def test_sample_keeps_everything_of_a_full_record():
    dumped = json.loads(json.dumps(Sample.model_validate(RECORD).model_dump(mode="json")))
    expected = copy.deepcopy(RECORD)
    expected["prompts"][2]["time_sec"] = 0.0
    assert dumped == expected


def test_sample_types_and_names():
    sample = Sample.model_validate(RECORD)
    assert [type(prompt) for prompt in sample.prompts] == [BoxPrompt, PointPrompt, ScribblePrompt]
    assert sample.targets.names == ("region", "temporal", "mask", "track", "depth")
    assert sample.media.duration_sec == 8.0
    assert sample.targets.region[1].xyxy == (2.0, 2.0, 3.0, 8.0)
    assert sample.targets.depth == {"metres": [1.5, None], "note": None}


def test_sample_is_frozen_and_pickles():
    sample = Sample.model_validate(RECORD).at("here")
    with pytest.raises(ValidationError, match="frozen"):
        sample.id = "other"
    assert pickle.loads(pickle.dumps(sample)) == sample
    assert pickle.loads(pickle.dumps(sample)).media_path == Path("here/clips/a.mp4")


def test_sample_at_leaves_the_first_sample_where_it_was():
    sample = Sample.model_validate(RECORD)
    assert (sample.at("here").root, sample.root, sample.media_path) == (Path("here"), None, Path("clips/a.mp4"))


def test_markers_and_mentions_in_order():
    assert markers("a <mask> b <region><my-head_2> < track > <Mask> <prompt:0> <2d>") == ["mask", "region", "my-head_2"]
    assert mentions("<prompt:2>, <prompt:0>, <prompt:12> <prompt:x>") == [2, 0, 12]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("targets/region", []),
        ("media/end_sec", ...),
        ("media", {"path": "a.jpg"}),
        ("meta", ...),
        ("source", ...),
        ("targets/temporal/windows_sec", ...),
        ("targets/temporal/saliency", ...),
        ("targets/temporal/windows_sec/1", [7, 8.0000001]),
        ("targets/mask/rle", [None, None]),
        ("targets/depth", [None]),
        ("targets/depth", 0),
        ("conversation/3/text", "<depth> <temporal> <depth> and <region>"),
        ("conversation/0/text", "<image> <prompt:1> <prompt:0> <prompt:2> <prompt:0>"),
    ],
)
def test_validate_accepts(tmp_path, path, value):
    record = changed(path, value)
    if record["targets"]["region"] == []:  # an absent object has no marker
        record["conversation"][1]["text"] = "It is not there. <mask> <track>"
    assert validate(save(tmp_path, record)) == []
    assert read(tmp_path / "samples.jsonl")[0].id == "clip-7"


RULES = [
    ("id", ..., "id", None, "missing"),
    ("id", 7, "id", 7, "string_type"),
    ("id", "  ", "id", "  ", "string_pattern_mismatch"),
    ("colour", "red", "colour", "red", "extra_forbidden"),
    ("media/rate", 25, "media.rate", 25, "extra_forbidden"),
    ("media/path", "", "media.path", "", "string_pattern_mismatch"),
    ("media/start_sec", 9.5, "media", {"path": "clips/a.mp4", "start_sec": 9.5, "end_sec": 9.5}, "media_order"),
    ("media/start_sec", -1, "media.start_sec", -1, "greater_than_equal"),
    ("conversation", [], "conversation", [], "too_short"),
    ("conversation/0/role", "human", "conversation[0].role", "human", "literal_error"),
    ("conversation/2/role", "assistant", "conversation[2].role", "assistant", "roles_alternate"),
    ("conversation/2/text", "", "conversation[2].text", "", "string_pattern_mismatch"),
    ("conversation/2/text", "<prompt:3>?", "conversation[2].text", "<prompt:3>?", "mention_has_prompt"),
    ("conversation/2/text", "<prompt:a>?", "conversation[2].text", "<prompt:a>?", "mention_form"),
    ("conversation/2/text", "<prompt:12345678901>?", "conversation[2].text", "<prompt:12345678901>?", "mention_form"),
    ("conversation/3/text", "<prompt:0> <temporal> <depth>", "conversation[3].text", "<prompt:0> <temporal> <depth>", "mention_role"),
    ("conversation/0/text", "<prompt:0> <prompt:2>", "prompts[1]", "point", "prompt_mentioned"),
    ("conversation/3/text", "<temporal> <depth> <pose>", "conversation[3].text", "<temporal> <depth> <pose>", "marker_has_target"),
    ("conversation/3/text", "<temporal> <depth> <mask>", "conversation[3].text", "<temporal> <depth> <mask>", "marker_count"),
    (
        "conversation/3/text",
        "<region> <region> <temporal> <depth>",
        "conversation[3].text",
        "<region> <region> <temporal> <depth>",
        "marker_count",
    ),
    ("conversation/3/text", "<temporal>", "targets.depth", "depth", "target_has_marker"),
    ("targets/mask", ..., "conversation[1].text", RECORD["conversation"][1]["text"], "marker_has_target"),
    ("targets/depth", None, "conversation[3].text", RECORD["conversation"][3]["text"], "marker_has_target"),
    ("targets/region", [], "conversation[1].text", RECORD["conversation"][1]["text"], "marker_has_target"),
    ("targets/Pose", 1, "targets.Pose", "Pose", "target_has_marker"),
    ("prompts/0/type", "circle", "prompts[0]", {"type": "circle", "time_sec": 0.0, "xyxy": [13, 403, 173, 586]}, "union_tag_invalid"),
    ("prompts/0/xyxy", [5, 1, 5, 9], "prompts[0].xyxy", [5, 1, 5, 9], "box_corners"),
    ("prompts/0/xyxy", [5, 1, 9], "prompts[0].xyxy[3]", None, "missing"),
    ("prompts/0/xyxy/0", -1, "prompts[0].xyxy[0]", -1, "greater_than_equal"),
    ("prompts/1/xy/1", "30", "prompts[1].xy[1]", "30", "float_type"),
    ("prompts/1/xy/1", True, "prompts[1].xy[1]", True, "float_type"),
    ("prompts/1/time_sec", 8.5, "prompts[1].time_sec", 8.5, "time_in_media"),
    ("prompts/2/xys", [[1, 2]], "prompts[2].xys", [[1, 2]], "too_short"),
    ("targets/region/0/xyxy", [0, 9, 5, 1], "targets.region[0].xyxy", [0, 9, 5, 1], "box_corners"),
    ("targets/region/0/time_sec", 1.0, "targets.region", [1.0, 0.0], "times_ascending"),
    ("targets/region/1/time_sec", 8.1, "targets.region[1].time_sec", 8.1, "time_in_media"),
    ("targets/temporal", {}, "targets.temporal", {}, "temporal_filled"),
    ("targets/temporal/windows_sec/0", [6, 6], "targets.temporal.windows_sec[0]", [6, 6], "window_order"),
    ("targets/temporal/windows_sec/1/1", 8.01, "targets.temporal.windows_sec[1]", 8.01, "time_in_media"),
    ("targets/temporal/saliency/step_sec", 0, "targets.temporal.saliency.step_sec", 0, "greater_than"),
    ("targets/temporal/saliency/scores", [0] * 6, "targets.temporal.saliency.scores", 6, "time_in_media"),
    ("targets/mask/times_sec", [0.5, 0.5], "targets.mask.times_sec", [0.5, 0.5], "times_ascending"),
    ("targets/mask/times_sec/1", 8.2, "targets.mask.times_sec[1]", 8.2, "time_in_media"),
    ("targets/mask/rle/1", {"size": [5, 3], "counts": "1"}, "targets.mask", None, "mask_size"),
    ("targets/mask/rle/0/size", [0, 5], "targets.mask.rle[0].size[0]", 0, "greater_than"),
    ("targets/mask/rle/0/counts", "a z", "targets.mask.rle[0].counts", "a z", "string_pattern_mismatch"),
    ("targets/track/xyxy", [None], "targets.track", {"times_sec": [0, 0.5, 1], "xyxy": [None]}, "lengths_equal"),
    ("targets/track/times_sec", [], "targets.track.times_sec", [], "too_short"),
    ("schema", "tpo_lab.sample/2", "schema", "tpo_lab.sample/2", "schema"),
]


@pytest.mark.parametrize(("path", "value", "field", "shown", "rule"), RULES, ids=[f"{row[4]}-{row[0]}-{i}" for i, row in enumerate(RULES)])
def test_validate_names_line_field_value_and_rule(tmp_path, path, value, field, shown, rule):
    file = save(tmp_path, {"schema": SCHEMA}, changed("id", "good"), changed(path, value))
    (problem,) = validate(file)
    assert (problem.line, problem.field, problem.rule) == (3, field, rule)
    if rule != "mask_size":
        assert problem.value == shown
    with pytest.raises(UsageError) as error:
        read(file)
    for part in (str(file), "line 3", field, f"(rule {rule})"):
        assert part in str(error.value)


def test_validate_reports_every_bad_record_and_every_broken_rule(tmp_path):
    wrong = changed("conversation/0/text", "No mention.")
    wrong["targets"]["temporal"]["windows_sec"] = [[0, 20]]
    file = save(tmp_path, changed("media/end_sec", "x"), RECORD, wrong, "{", changed("prompts/0/xyxy", [1, None, "b", 3]))
    found = [(problem.line, problem.field) for problem in validate(file)]
    assert found == [
        (1, "media.end_sec"),
        (3, "prompts[0]"),
        (3, "prompts[1]"),
        (3, "prompts[2]"),
        (3, "targets.temporal.windows_sec[0]"),
        (4, ""),
        (5, "prompts[0].xyxy[1]"),
        (5, "prompts[0].xyxy[2]"),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[1, 2]",
        "7",
        "null",
        json.dumps(RECORD).replace("8", "NaN", 1),
        json.dumps(RECORD).replace("3.5", "1e999"),
        json.dumps(RECORD).replace("clip-7", "\\ud800"),
        json.dumps(RECORD).replace("motion-only", "\\udfff"),
        "[" * 100_000,
        '{"id": ' + "9" * 5000 + "}",
        '{"meta": ' + "[" * 300 + "]" * 300 + "}",
    ],
    ids=["cut", "list", "number", "null", "nan", "inf", "surrogate-id", "surrogate-meta", "deep", "long-number", "deep-meta"],
)
def test_validate_reports_lines_that_are_no_record(tmp_path, line):
    file = save(tmp_path, changed("id", "good"), line)
    problems = validate(file)
    assert {problem.line for problem in problems} == {2}
    assert all(len(str(problem)) < 600 for problem in problems)
    with pytest.raises(UsageError, match=r"samples\.jsonl, line 2"):
        read(file)


def test_validate_reports_bytes_that_are_not_utf8(tmp_path):
    file = tmp_path / "latin.jsonl"
    file.write_bytes(json.dumps(RECORD).encode() + b'\n{"id": "caf\xe9"}\n')
    (problem,) = validate(file)
    assert (problem.line, problem.rule) == (2, "json")
    assert "utf-8" in problem.message


def test_read_names_two_records_of_one_id(tmp_path):
    file = save(tmp_path, RECORD, "", changed("source", "other"))
    assert validate(file) == [Problem(3, "id", "clip-7", "id_unique", "an id other than that of line 1")]
    with pytest.raises(UsageError, match=r"line 3: id: expected an id other than that of line 1 \(rule id_unique\), got 'clip-7'"):
        read(file)


def test_read_takes_headers_blank_lines_and_a_byte_order_mark(tmp_path):
    file = tmp_path / "joined.jsonl"
    header, versioned = json.dumps({"schema": SCHEMA}), json.dumps(changed("schema", SCHEMA))
    file.write_bytes(b"\xef\xbb\xbf" + f"{header}\r\n{versioned}\r\n\r\n{header}\n{json.dumps(changed('id', 'b'))}".encode())
    assert [sample.id for sample in read(file)] == ["clip-7", "b"]


def test_read_refuses_a_header_of_another_version(tmp_path):
    file = save(tmp_path, {"schema": "tpo_lab.sample/9"}, RECORD)
    with pytest.raises(UsageError, match=r"line 1: schema: expected the schema 'tpo_lab\.sample/1'.* got 'tpo_lab\.sample/9'"):
        read(file)


def test_read_of_several_files_keeps_their_order_and_folders(tmp_path):
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        save(tmp_path / name, changed("id", name))
    samples = read([tmp_path / "b" / "samples.jsonl", str(tmp_path / "a" / "samples.jsonl")])
    assert [(sample.id, sample.media_path) for sample in samples] == [(name, tmp_path / name / "clips/a.mp4") for name in "ba"]


def test_read_names_a_missing_file(tmp_path):
    with pytest.raises(UsageError, match=r"expected a JSONL file of samples, got .*none\.jsonl"):
        read(tmp_path / "none.jsonl")
    with pytest.raises(UsageError, match=r"a JSONL file"):
        validate(tmp_path)


def test_iter_samples_gives_the_good_records_before_the_bad_one(tmp_path):
    samples = iter_samples(save(tmp_path, RECORD, changed("media/path", 5)))
    assert next(samples).id == "clip-7"
    with pytest.raises(UsageError, match=r"line 2: media\.path: expected a valid string \(rule string_type\), got 5"):
        next(samples)


def test_validate_looks_for_media_only_where_asked(tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").touch()
    (tmp_path / "clips" / "odd[1].mp4").touch()
    paths = [
        "clips/a.mp4",
        "clips/*.mp4",
        "clips/odd[1].mp4",
        "clips/*.jpg",
        "b.mp4",
        "x" * 5000,
        str(tmp_path / "clips" / "a.mp4"),
        "world://a/7",
    ]
    file = save(tmp_path, *(changed("media/path", path) | {"id": path} for path in paths))
    assert validate(file) == []
    assert [(p.line, p.field, p.value, p.rule) for p in validate(file, check_media=True)] == [
        (line, "media.path", paths[line - 1], "media_exists") for line in (4, 5, 6)
    ]


def test_write_then_read_gives_the_same_samples(tmp_path):
    samples = [Sample.model_validate(RECORD).at(tmp_path), Sample.model_validate(changed("id", "ünï 中")).at(tmp_path)]
    assert write(tmp_path / "out.jsonl", iter(samples)) == 2
    assert read(tmp_path / "out.jsonl") == samples
    text = (tmp_path / "out.jsonl").read_text(encoding="utf-8")
    assert text.splitlines()[0] == '{"schema": "tpo_lab.sample/1"}'
    assert "ünï 中" in text


def test_write_elsewhere_still_leads_to_the_same_media(tmp_path):
    (tmp_path / "first").mkdir()
    absolute = changed("media/path", str(tmp_path / "b.mp4")) | {"id": "absolute"}
    rendered = changed("media/path", "world://train/7") | {"id": "rendered"}
    samples = read(save(tmp_path / "first", RECORD, absolute, rendered))
    write(tmp_path / "deep" / "second" / "all.jsonl", samples)
    moved = read(tmp_path / "deep" / "second" / "all.jsonl")
    assert moved[0].media.path == "../../first/clips/a.mp4"
    assert moved[2].media.path == "world://train/7"
    assert [sample.media_path.resolve() for sample in moved[:2]] == [tmp_path / "first/clips/a.mp4", tmp_path / "b.mp4"]


@pytest.mark.parametrize(
    ("second", "match"),
    [
        ({}, r"samples: expected ids that differ, got 'clip-7'"),
        ({"id": "b", "meta": {"x": float("nan")}}, r"sample b: expected finite numbers.*not JSON compliant"),
        ({"id": "b", "meta": {"x": "\ud800"}}, r"sample b: expected .*Unicode.*surrogates"),
    ],
)
def test_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, second, match):
    path = tmp_path / "out.jsonl"
    path.write_text("old")
    with pytest.raises(UsageError, match=match):
        write(path, [Sample.model_validate(RECORD), Sample.model_validate(RECORD | second)])
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.jsonl"]


def test_problem_prints_one_short_line():
    assert str(Problem(4, "id", "x" * 500, "id_unique", "another id")).startswith("line 4, id: expected another id, got 'xxx")
    assert len(str(Problem(4, "id", "x" * 500, "id_unique", "another id"))) < 200


def test_samples_are_built_in_python_with_the_same_rules():
    turns = (Turn(role="user", text="Where?"), Turn(role="assistant", text="<region>"))
    sample = Sample(id="a", media=Media(path="a.jpg"), conversation=turns, targets={"region": [RegionTarget(xyxy=(0, 0, 2, 3))]})
    assert sample.targets.names == ("region",)
    with pytest.raises(ValidationError, match=r"targets\.region: expected <region> in an assistant turn, got 'region'"):
        Sample(id="a", media=Media(path="a.jpg"), conversation=turns[:1], targets=sample.targets)


number = st.floats(0, 1e6, allow_nan=False)
ordered = st.tuples(number, st.floats(0.001, 1e3)).map(lambda pair: (pair[0], pair[0] + pair[1] + 1e-3))
box = st.tuples(ordered, ordered).map(lambda sides: [sides[0][0], sides[1][0], sides[0][1], sides[1][1]])
times = st.lists(number, min_size=1, max_size=4, unique=True).map(sorted)
prompt = st.one_of(
    st.fixed_dictionaries({"type": st.just("box"), "time_sec": number, "xyxy": box}),
    st.fixed_dictionaries({"type": st.just("point"), "xy": st.tuples(number, number)}),
    st.fixed_dictionaries({"type": st.just("scribble"), "xys": st.lists(st.tuples(number, number), min_size=2, max_size=4)}),
)
rle = st.none() | st.fixed_dictionaries({"size": st.just([3, 5]), "counts": st.text("0o^a", min_size=1, max_size=5)})
text = st.text(st.characters(codec="utf-8", exclude_characters="<"), max_size=8)
json_value = st.recursive(
    st.none() | st.booleans() | st.integers() | number | text,
    lambda v: st.lists(v, max_size=3) | st.dictionaries(text, v, max_size=3),
    max_leaves=5,
)


def per_time(name: str, value: st.SearchStrategy) -> st.SearchStrategy:
    return times.flatmap(
        lambda t: st.fixed_dictionaries({"times_sec": st.just(t), name: st.lists(value, min_size=len(t), max_size=len(t))})
    )


@st.composite
def records(draw: st.DrawFn) -> dict:
    prompts = draw(st.lists(prompt, max_size=3))
    heads = {
        "region": st.lists(box, min_size=1, max_size=3).map(lambda boxes: [{"xyxy": each} for each in boxes]),
        "temporal": st.fixed_dictionaries({"windows_sec": st.lists(ordered, min_size=1, max_size=3)}),
        "mask": per_time("rle", rle),
        "track": per_time("xyxy", st.none() | box),
        "copy": json_value.filter(lambda value: value is not None),
    }
    targets = draw(st.fixed_dictionaries({}, optional=heads))
    question = draw(text) + "?" + "".join(f"<prompt:{i}>" for i in range(len(prompts)))
    answer = draw(text) + "!" + "".join(f"<{name}>" for name in draw(st.permutations(list(targets))))
    return {
        "id": "x" + draw(text),
        "media": {"path": "a" + draw(text).replace("\x00", "")},
        "conversation": [{"role": "user", "text": question}, {"role": "assistant", "text": answer}],
        "prompts": prompts,
        "targets": targets,
        "meta": draw(st.dictionaries(text, json_value, max_size=3)),
    }


@given(record=records())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_any_sample_survives_a_file(tmp_path, record):
    sample = Sample.model_validate(record).at(tmp_path)
    write(tmp_path / "any.jsonl", [sample])
    assert validate(tmp_path / "any.jsonl") == []
    assert read(tmp_path / "any.jsonl") == [sample]


def places(node: object, way: tuple = ()) -> list[tuple]:
    """The path of every value inside a record."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [place for key, value in items for place in [(*way, key), *places(value, (*way, key))]]


odd = st.one_of(
    json_value,
    st.sampled_from(
        [float("nan"), float("inf"), -1, 10**400, True, [], {}, "", "<region>", "<prompt:9>", "<prompt:", {"type": "box"}, [[]], "\x00"]
    ),
)


@given(
    place=st.sampled_from(places(RECORD)), value=odd, remove=st.booleans(), key=st.sampled_from(["model_config", "type", "<", "é", "size"])
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutated_records_give_samples_or_problems_and_nothing_else(tmp_path, place, value, remove, key):
    record = copy.deepcopy(RECORD)
    node = record
    for step in place[:-1]:
        node = node[step]
    if remove:
        del node[place[-1]]
        if isinstance(node, dict):
            node[key] = value
    else:
        node[place[-1]] = value
    file = save(tmp_path, record)
    problems = validate(file, check_media=True)
    assert all(problem.line == 1 and problem.rule and problem.message and str(problem) for problem in problems)
    if all(problem.rule == "media_exists" for problem in problems):
        (sample,) = read(file)
        assert Sample.model_validate(sample.model_dump(mode="json")).at(tmp_path) == sample
    else:
        with pytest.raises(UsageError, match="line 1"):
            read(file)


@given(raw=st.binary(max_size=40), cut=st.integers(0, 400), at=st.integers(0, 400))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_bytes_give_samples_or_problems_and_nothing_else(tmp_path, raw, cut, at):
    good = json.dumps(RECORD).encode()
    file = tmp_path / "damaged.jsonl"
    file.write_bytes(good[:at] + raw + good[at + cut :])
    problems = validate(file)
    try:
        assert len(read(file)) <= 1
        assert problems == []
    except UsageError:
        assert problems


def test_qvhighlights_annotations_become_valid_samples(tmp_path, real: Path):
    rows = [json.loads(line) for line in (real / "qvhighlights" / "highlight_val_release.jsonl").read_text().splitlines()[:300]]
    samples = [
        Sample(
            id=str(row["qid"]),
            media=Media(path=f"{row['vid']}.mp4", end_sec=row["duration"]),
            conversation=[{"role": "user", "text": row["query"]}, {"role": "assistant", "text": "<temporal>"}],
            targets={
                "temporal": {"windows_sec": row["relevant_windows"], "saliency": {"step_sec": 2, "scores": [1] * (row["duration"] // 2)}}
            },
        )
        for row in rows
    ]
    assert write(tmp_path / "qvh.jsonl", samples) == 300
    assert [list(map(list, s.targets.temporal.windows_sec)) for s in read(tmp_path / "qvh.jsonl")] == [
        row["relevant_windows"] for row in rows
    ]
