"""A sample of the damaged safetensors files; .ci/run has 100,000 of them, .ci/exhaustive a million."""

from pathlib import Path

from fuzz_safetensors import fuzz

SEED = 20261127


def test_damaged_files_are_read_right_or_refused(tmp_path: Path) -> None:
    seen = fuzz(2000, SEED, tmp_path, measured=20)
    assert seen["read, as the library reads it"] > 50
    assert len(seen) > 20  # many kinds of refusal were seen
