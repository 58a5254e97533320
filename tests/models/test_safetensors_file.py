"""safetensors files: the strict header check, reading every float dtype, writing any layout, odd targets."""

import json
import os
import stat
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minitl.errors import CheckpointError
from minitl.models.safetensors_file import LARGEST_HEADER, SafetensorsFile, TensorInfo, parse_header, read_header, write


def entry(dtype="F32", shape=(2,), offsets=(0, 8), **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


def file_bytes(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def read(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    return read_header(path)


def test_header_of_a_well_formed_file(tmp_path):
    header = {"b": entry(offsets=(0, 8)), "a": entry("I64", (), (8, 16)), "none": entry("F16", (0, 3), (8, 8))}
    content = file_bytes({"__metadata__": {"format": "pt"}, **header}, bytes(16))
    first = len(content) - 16
    assert read(tmp_path, content) == {
        "b": TensorInfo("F32", (2,), first, first + 8),
        "none": TensorInfo("F16", (0, 3), first + 8, first + 8),
        "a": TensorInfo("I64", (), first + 8, first + 16),
    }
    assert read(tmp_path, file_bytes(b"{}   ")) == {}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "too short"),
        (b"\x00" * 7, "too short"),
        (b"\x00" * 8, "begin"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n", "git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "cut short or not"),
        (file_bytes(b"{}", length=3), "cut short"),
        (file_bytes(b"{}", length=1), "not JSON"),
        (file_bytes(b"{}", length=2**31), "cut short"),
        (file_bytes(b"{}", length=2**63), "cut short"),
        (file_bytes(b"{}", length=2**64 - 1), "cut short"),
        (file_bytes(b"{" + b" " * LARGEST_HEADER + b"}"), "allowed"),
        (file_bytes(b" {}"), "begin"),
        (file_bytes(b"[]"), "begin"),
        (file_bytes(b'{"a": NaN}'), "NaN"),
        (file_bytes(b'{"a\xff": {}}'), "UTF-8"),
        (file_bytes(b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "nested"),
        (file_bytes(b'{"a": 1, "a": 1}'), "duplicate key 'a'"),
        (file_bytes(b'{"a": {"dtype": "F32", "dtype": "F32"}}'), "duplicate key 'dtype'"),
        (file_bytes({"__metadata__": None}), "__metadata__"),
        (file_bytes({"__metadata__": {"format": 1}}), "__metadata__"),
        (file_bytes({"__metadata__": {"a": "b"}, "x": {}}), "exactly dtype"),
        (file_bytes({"x": entry(more=1)}, bytes(8)), "exactly dtype"),
        (file_bytes({"x": entry("F31")}, bytes(8)), "dtype"),
        (file_bytes({"x": entry("f32")}, bytes(8)), "dtype"),
        (file_bytes({"x": {**entry(), "dtype": ["F32"]}}, bytes(8)), "dtype"),
        (file_bytes({"x": entry(shape=(-2,))}, bytes(8)), "shape"),
        (file_bytes({"x": entry(shape=(2.0,))}, bytes(8)), "shape"),
        (file_bytes({"x": entry(shape=(True, 2))}, bytes(8)), "shape"),
        (file_bytes({"x": {**entry(), "shape": 2}}, bytes(8)), "shape"),
        (file_bytes({"x": entry(shape=(2**40, 2**40))}, bytes(8)), "impossible shape"),
        (file_bytes({"x": entry(shape=(0, 2**63, 4), offsets=(0, 0))}), "impossible shape|too large"),
        (file_bytes({"x": entry(shape=(1,) * 65, offsets=(0, 4))}, bytes(4)), "impossible shape"),
        (file_bytes({"x": entry(shape=(3,))}, bytes(8)), "12 bytes"),
        (file_bytes({"x": entry("F4", (3,), (0, 2))}, bytes(2)), "1.5 bytes"),
        (file_bytes({"x": entry(offsets=(8, 0))}, bytes(8)), "range"),
        (file_bytes({"x": entry(offsets=(-8, 0))}, bytes(8)), "range"),
        (file_bytes({"x": entry(offsets=(0, 8, 8))}, bytes(8)), "data_offsets"),
        (file_bytes({"x": entry(offsets=(False, 8))}, bytes(8)), "data_offsets"),
        (file_bytes({"x": entry(offsets=(4, 12))}, bytes(12)), "hole"),
        (file_bytes({"x": entry(), "y": entry(offsets=(4, 12))}, bytes(12)), "overlaps"),
        (file_bytes({"x": entry(), "y": entry()}, bytes(8)), "overlaps"),
        (file_bytes({"x": entry(), "y": entry(offsets=(12, 20))}, bytes(20)), "hole"),
        (file_bytes({"x": entry()}, bytes(7)), "cut short"),
        (file_bytes({"x": entry()}, bytes(8) + b"PK\x05\x06"), "cut short or damaged"),
        (file_bytes({}, b"x"), "cut short or damaged"),
        (file_bytes({f"x{i}": entry() for i in range(5000)}, bytes(8)), "overlaps"),
    ],
)
def test_a_broken_rule_gives_one_error_that_names_the_file(tmp_path, content, words):
    with pytest.raises(CheckpointError, match=words) as caught:
        read(tmp_path, content)
    assert "model.safetensors" in str(caught.value)


def test_missing_files_folders_and_pipes_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        read_header(tmp_path / "absent.safetensors")
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_header(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(CheckpointError, match="not a regular file"):  # and it does not wait for a writer
            read_header(tmp_path / "pipe")


def test_a_file_that_is_cut_or_removed_while_it_is_open(tmp_path):
    """It is read, not mapped: a map of it would kill the process."""
    path = tmp_path / "model.safetensors"
    write(path, {"a": np.arange(1000.0), "b": np.ones(3, dtype=bool)})
    with SafetensorsFile(path) as opened:
        os.truncate(path, path.stat().st_size - 1)
        with pytest.raises(CheckpointError, match=r"model\.safetensors: became shorter while it was being read"):
            [opened.read_stored(name) for name in opened.tensors]
    write(path, {"a": np.arange(1000.0)})
    with SafetensorsFile(path) as opened:
        path.unlink()
        np.testing.assert_array_equal(opened.read("a"), np.arange(1000.0))


def test_any_byte_but_zero_is_true(tmp_path):
    content = file_bytes({"x": entry("BOOL", (4,), (0, 4))}, bytes([0, 1, 2, 255]))
    (tmp_path / "x.safetensors").write_bytes(content)
    with SafetensorsFile(tmp_path / "x.safetensors") as opened:
        assert opened.read_stored("x").view(np.uint8).tolist() == [0, 1, 1, 1]


json_leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.just("F32")
headers = st.dictionaries(
    st.text(max_size=4) | st.just("__metadata__"),
    json_leaves
    | st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["F32", "BF16", "F4", "I8", "F99"]) | json_leaves,
            "shape": st.lists(st.integers(-1, 5) | st.integers(), max_size=3) | json_leaves,
            "data_offsets": st.lists(st.integers(0, 24) | st.integers(), max_size=3) | json_leaves,
        }
    ),
    max_size=3,
)


@given(header=headers, size=st.integers(0, 32))
def test_any_json_header_is_accepted_or_gives_a_checkpoint_error(header, size):
    try:
        tensors = parse_header(json.dumps(header).encode(), data_size=size, where="file")
    except CheckpointError:
        return
    assert sum(info.end - info.start for info in tensors.values()) == size


GOOD = file_bytes(
    {
        "__metadata__": {"format": "pt"},
        "a": entry(),
        "b": entry("BF16", (2, 2), (8, 16)),
        "c": entry("F64", (), (16, 24)),
    },
    bytes(range(24)),
)
mutations = st.lists(
    st.tuples(st.sampled_from(["set", "cut", "insert", "delete"]), st.integers(0, len(GOOD) - 1), st.integers(0, 255)),
    min_size=1,
    max_size=6,
)


@given(mutations)
def test_a_mutated_file_is_read_or_gives_a_checkpoint_error(tmp_path_factory, steps):
    content = bytearray(GOOD)
    for kind, place, value in steps:
        if kind == "cut":
            del content[place:]
        elif kind == "insert":
            content[place:place] = bytes([value])
        elif place < len(content):
            content[place : place + 1] = bytes([value]) if kind == "set" else b""
    path = tmp_path_factory.mktemp("mutant") / "model.safetensors"
    path.write_bytes(content)
    try:
        with SafetensorsFile(path) as opened:
            for name, info in opened.tensors.items():
                assert opened.read(name, "float64").shape == info.shape
    except CheckpointError as error:
        assert "model.safetensors" in str(error)  # noqa: PT017  # both outcomes are right, and both are checked


@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.float64, np.float16, np.int64, np.int8, np.uint16, np.bool_]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
    ),
    st.sampled_from(["as it is", "transposed", "reversed", "strided", "fortran", "broadcast", "big-endian"]),
)
def test_every_layout_is_written_right_for_both_readers(tmp_path_factory, array, layout):
    array = {
        "as it is": lambda: array,
        "transposed": lambda: array.T,
        "reversed": lambda: array[..., ::-1] if array.ndim else array,
        "strided": lambda: array[..., ::2] if array.ndim else array,
        "fortran": lambda: np.asfortranarray(array),
        "broadcast": lambda: np.broadcast_to(array, (3, *array.shape)),
        "big-endian": lambda: array.astype(array.dtype.newbyteorder(">")),
    }[layout]()
    from safetensors.numpy import load_file

    path = tmp_path_factory.mktemp("layout") / "x.safetensors"
    write(path, {"x": array, "other": np.arange(3.0)})
    back = load_file(path)["x"]
    assert back.dtype == array.dtype.newbyteorder("=")
    assert back.shape == array.shape
    np.testing.assert_array_equal(back, array)
    if array.dtype.kind == "f":
        with SafetensorsFile(path) as opened:
            np.testing.assert_array_equal(opened.read("x", "float64"), array.astype(np.float64))
    assert json.loads(path.read_bytes()[8:].partition(b"}}")[0] + b"}}")["__metadata__"] == {"format": "pt"}


def test_all_bfloat16_patterns_widen_exactly(tmp_path):
    patterns = np.arange(65536, dtype="<u2")
    path = tmp_path / "b.safetensors"
    path.write_bytes(file_bytes({"x": entry("BF16", (256, 256), (0, 131072))}, patterns.tobytes()))
    with SafetensorsFile(path) as opened:
        values = opened.read("x")
        wide = opened.read("x", "float64")
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values.view(np.uint32).ravel(), patterns.astype(np.uint32) << 16)
    with np.errstate(invalid="ignore"):  # half of the NaN patterns are signalling ones
        np.testing.assert_array_equal(wide, values.astype(np.float64))


def test_reading_converts_and_says_when_a_value_does_not_fit(tmp_path):
    path = tmp_path / "x.safetensors"
    arrays = {
        "half": np.array([0.1, np.inf], np.float16),
        "double": np.array([1 / 3, np.nan]),
        "huge": np.array([1e300]),
        "whole": np.arange(3),
    }
    write(path, arrays)
    with SafetensorsFile(path) as opened:
        np.testing.assert_array_equal(opened.read("half"), arrays["half"].astype(np.float32))
        np.testing.assert_array_equal(opened.read("double"), arrays["double"].astype(np.float32))
        with pytest.raises(CheckpointError, match=r"'huge'.*float64"):
            opened.read("huge")
        assert opened.read("huge", "float64") == 1e300
        with pytest.raises(CheckpointError, match="'whole' is I64"):
            opened.read("whole")


def test_writing_refuses_what_the_format_lacks(tmp_path):
    with pytest.raises(TypeError, match="object"):
        write(tmp_path / "x.safetensors", {"x": np.array([None])})
    with pytest.raises(TypeError, match="complex"):
        write(tmp_path / "x.safetensors", {"x": np.zeros(2, np.complex128)})
    with pytest.raises(ValueError, match="reserved"):
        write(tmp_path / "x.safetensors", {"__metadata__": np.zeros(2)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no umask")
@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_the_umask_is_honoured(tmp_path, umask):
    before = os.umask(umask)
    try:
        write(tmp_path / "x.safetensors", {"x": np.zeros(2)})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.safetensors").stat().st_mode) == 0o666 & ~umask


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    write(path, {"x": np.zeros(2)})
    old = path.read_bytes()

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(CheckpointError, match="No space left"):
        write(path, {"x": np.ones(2)})
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_odd_targets_are_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "real").write_bytes(b"precious")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    targets = ["folder", "link", "absent/x.safetensors"]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        targets.append("pipe")
    for target in targets:
        with pytest.raises(CheckpointError, match=target.split("/")[0]):
            write(tmp_path / target, {"x": np.zeros(2)})
    assert (tmp_path / "real").read_bytes() == b"precious"
