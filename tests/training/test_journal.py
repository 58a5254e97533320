"""Logs, event files, manifests, statistics and curves: what people read of a run."""

from __future__ import annotations

import json
import math
import struct
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitl.errors import MinitlError
from minitl.text import Sentence
from minitl.training import RunSettings, TrainingSettings, summarize
from minitl.training.journal import Journal
from minitl.training.manifest import data_sha256, read_manifest, weights_sha256, write_manifest
from minitl.training.statistics import T_975
from minitl.training.tensorboard import crc32c, scalars
from minitl.viz.curves import Curve, Panel, draw


def records(data: bytes) -> list[bytes]:
    """Read an event file: each record's data, its checksums checked."""

    def unmasked(stored: bytes) -> int:
        rotated = (struct.unpack("<I", stored)[0] - 0xA282EAD8) & 0xFFFFFFFF
        return (rotated >> 17 | rotated << 15) & 0xFFFFFFFF

    found = []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        assert unmasked(data[8:12]) == crc32c(data[:8])
        record, check = data[12 : 12 + length], data[12 + length : 16 + length]
        assert unmasked(check) == crc32c(record)
        found.append(record)
        data = data[16 + length :]
    return found


def test_a_journal_is_cut_and_goes_on(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write({"step": 1, "loss": 0.5}, {"train/loss": 0.5})
    lengths = journal.flush()
    journal.write({"step": 2, "loss": math.nan}, {"train/loss": math.nan})
    journal.close()
    again = Journal(tmp_path)
    assert again.cut(lengths) == []
    again.write({"step": 2, "loss": 0.25}, {"train/loss": 0.25, "train/lr": math.inf})
    again.close()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 0.5), (2, 0.25)]
    (events,) = tmp_path.glob("events.out.tfevents.*")
    found = records(events.read_bytes())
    assert len(found) == 3
    assert b"brain.Event:2" in found[0]
    assert b"train/loss\x15" + struct.pack("<f", 0.25) in found[2]
    assert b"train/lr" not in found[2]


def test_a_journal_that_has_lost_something_says_so(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write({"step": 1, "loss": math.inf})
    lengths = journal.flush()
    journal.close()
    assert json.loads((tmp_path / "log.jsonl").read_text())["loss"] == "inf"
    (tmp_path / "log.jsonl").write_bytes(b"")
    again = Journal(tmp_path)
    assert "log.jsonl has lost" in again.cut(lengths)[0]
    assert again.cut({"log": 0, "events": 0}) == []
    again.close()
    (events,) = tmp_path.glob("events.out.tfevents.*")
    assert len(records(events.read_bytes())) == 1  # the header is there again
    with pytest.raises(MinitlError, match="cannot be written"):
        Journal(tmp_path / "nowhere")


@given(step=st.integers(0, 2**62), value=st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_steps_are_varints(step: int, value: float) -> None:
    (record,) = records(scalars(1.5, step, {"a": value}))
    assert record[:9] == b"\x09" + struct.pack("<d", 1.5)
    decoded, shift, place = 0, 0, 10
    while True:
        byte = record[place]
        decoded |= (byte & 0x7F) << shift
        shift, place = shift + 7, place + 1
        if byte < 0x80:
            break
    assert (record[9], decoded) == (0x10, step)
    assert record.endswith(b"\x15" + struct.pack("<f", value))


def test_quantiles_of_t() -> None:
    for degrees, quantile in enumerate(T_975, 1):
        t = np.linspace(0, quantile, 20_001)
        logarithm = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - 0.5 * math.log(degrees * math.pi)
        density = np.exp(logarithm - (degrees + 1) / 2 * np.log1p(t**2 / degrees))
        below = 0.5 + float(((density[1:] + density[:-1]) / 2 * np.diff(t)).sum())
        assert abs(below - 0.975) < 3e-5, degrees  # three decimals in the table


def test_a_summary() -> None:
    one = summarize([0.4, 0.5, 0.6])
    assert (one.mean, one.count) == (0.5, 3)
    assert math.isclose(one.half_width, 4.303 * 0.1 / math.sqrt(3))
    assert "no interval" in str(summarize([0.5]))
    assert summarize([1.0] * 40).half_width == 0
    with pytest.raises(ValueError, match="nothing to summarize"):
        summarize([])


def test_fingerprints_tell_apart() -> None:
    sentences = [Sentence(("a", "b"), ("O", "B-X")), Sentence(("c",), ("O",))]
    known = data_sha256(sentences)
    assert known == data_sha256([Sentence(one.words, one.tags, 3, "elsewhere", 9) for one in sentences])
    others = [
        sentences[::-1],
        [Sentence(("a", "b", "c"), ("O", "B-X", "O"))],
        [Sentence(("a", "b"), ("O", "O")), sentences[1]],
    ]
    assert len({known, *map(data_sha256, others)}) == 4
    arrays = {"a": np.zeros(2, np.float32), "b": np.ones((2, 1))}
    same = {"b": np.ones((2, 1), order="F"), "a": np.zeros(2, np.float32)}
    assert weights_sha256(arrays) == weights_sha256(same)
    assert weights_sha256(arrays) != weights_sha256({**arrays, "a": np.zeros(2)})
    assert weights_sha256(arrays) != weights_sha256({"a": arrays["b"], "b": arrays["a"]})


def test_a_manifest_comes_back(tmp_path: Path) -> None:
    settings = RunSettings(data="x", class_weights={"O": 0.5}, training=TrainingSettings(epochs=2, patience=3))
    write_manifest(tmp_path, {"settings": settings.as_dict()})
    assert RunSettings.from_dict(read_manifest(tmp_path)["settings"]) == settings
    (tmp_path / "run.json").write_text('{"format": "minitl run 9"}')
    with pytest.raises(MinitlError, match="format 'minitl run 9'"):
        read_manifest(tmp_path / "run.json")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"epochs": True}, "epochs must be a whole number"),
        ({"epochs": 1.5}, "epochs must be a whole number"),
        ({"lr": "fast"}, "lr must be a number"),
        ({"lr": math.nan}, "lr must be at least 0"),
        ({"warmup": 1.0}, "warmup must be at least 0 and below 1"),
        ({"max_norm": 0.0}, "max_norm must be above 0"),
        ({"schedule": "step"}, "schedule must be one of"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"seed": 2**64}, "seed must be"),
        ({"learning_rate": 1}, "unknown settings: learning_rate"),
    ],
)
def test_settings_out_of_range(values: dict[str, object], message: str) -> None:
    with pytest.raises(MinitlError, match=message):
        TrainingSettings.from_dict(values)


@given(
    st.lists(st.floats(width=32), max_size=30),
    st.sampled_from(["loss", "<&\"'>", "\u0394"]),
    st.booleans(),
)
def test_curves_are_always_a_picture(values: list[float], name: str, logarithmic: bool) -> None:
    steps = [float(number + 1) for number in range(len(values))]
    picture = draw([Panel(name, [Curve(name, steps, values, markers=True)], logarithmic), Panel("empty", [])], name)
    root = ElementTree.fromstring(picture)
    assert root.tag.endswith("svg")
    assert "nan" not in picture
    assert "inf" not in picture
    circles = [element for element in root.iter() if element.tag.endswith("circle")]
    assert len(circles) == sum(math.isfinite(value) for value in values)


def test_many_points_are_averaged() -> None:
    picture = draw([Panel("long", [Curve("loss", range(1, 10_001), [1.0] * 10_000)])])
    assert picture.count("L") <= 2000
