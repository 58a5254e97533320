"""Safetensors files with random damage: each is read right or refused by one error that names it. Run by .ci/run.

    python tests/hostile/fuzz_safetensors.py --files 100000

Most damage is to the header, by the byte and by the meaning. What minitl accepts, the safetensors library must accept,
too, with the same bytes in every tensor (the other way round minitl is stricter, on purpose). The address space of the
process is limited, so that a length that lies cannot allocate unseen; the largest growth is measured and printed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import safetensors
import safetensors.numpy

from minitl.errors import CheckpointError
from minitl.models.safetensors_file import DTYPE_BITS, NUMPY_DTYPES, SafetensorsFile

MEMORY = 64 * 2**20  # bytes beyond the file's own
ADDRESS_SPACE = 2 * 2**30  # bytes beyond what the process has at its start
NUMBERS = (0, 1, -1, 2, 7, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**19, 10**30)
ODD: tuple[Any, ...] = (None, True, False, 1.5, -0.0, "", "F32", "f32", [], {}, [[]], "\ud800", "\0", float("inf"))


def good_file(chance: random.Random) -> bytes:
    """A file as anybody might have written it."""
    header: dict[str, Any] = {}
    if chance.random() < 0.5:
        header["__metadata__"] = {"format": "pt"}
    position = 0
    for number in range(chance.randint(0, 6)):
        dtype = chance.choice(sorted(DTYPE_BITS))
        shape = [chance.randint(0, 5) for _ in range(chance.randint(0, 3))]
        bits = DTYPE_BITS[dtype]
        for side in shape:
            bits *= side
        if bits % 8:
            continue
        header[chance.choice(["weight", "bias", "\u00e9", "bert.encoder"]) + str(number)] = {
            "dtype": dtype,
            "shape": shape,
            "data_offsets": [position, position + bits // 8],
        }
        position += bits // 8
    return assembled(
        json.dumps(header, ensure_ascii=chance.random() < 0.5).encode(), chance.randbytes(position), chance
    )


def assembled(header: bytes, data: bytes, chance: random.Random) -> bytes:
    padded = header + b" " * (-len(header) % 8 if chance.random() < 0.7 else 0)
    return len(padded).to_bytes(8, "little") + padded + data


def damaged(content: bytes, chance: random.Random) -> bytes:
    """The file with one to three kinds of damage."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        content = chance.choice(DAMAGES)(content, chance)
    return content


def flip_bits(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        if changed:
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def insert_bytes(content: bytes, chance: random.Random) -> bytes:
    place = chance.randint(0, len(content))
    return content[:place] + chance.randbytes(chance.randint(1, 9)) + content[place:]


def delete_bytes(content: bytes, chance: random.Random) -> bytes:
    place = chance.randint(0, len(content))
    return content[:place] + content[place + chance.randint(1, 9) :]


def cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randint(0, len(content))]


def append(content: bytes, chance: random.Random) -> bytes:
    return content + chance.choice((b"\0", b"PK\x05\x06", content, chance.randbytes(100)))


def lie_about_the_header(content: bytes, chance: random.Random) -> bytes:
    length = int.from_bytes(content[:8], "little")
    lies = (length + 1, length - 1, length // 2, 0, 1, 2**16, 2**31, 2**40, 2**63, 2**64 - 1, len(content) - 8)
    return max(0, chance.choice(lies)).to_bytes(9, "little")[:8] + content[8:]


def random_bytes(content: bytes, chance: random.Random) -> bytes:
    return chance.randbytes(chance.randint(0, 300))


def replace_text(content: bytes, chance: random.Random) -> bytes:
    """Change a sign of the header's grammar, and mend its length, so that the damage is looked at."""
    header, data = parts_of(content)
    if not header:
        return content
    places = [match.start() for match in re.finditer(rb'["{}\[\],:0-9]', header)]
    if places:
        place = chance.choice(places)
        new = chance.choice((b"", b'"', b"{", b"}", b"[", b"]", b",", b":", b"9", b"-", b"1e400", b"NaN", b"\\", b"\0"))
        header = header[:place] + new + header[place + 1 :]
    return assembled(header, data, chance)


def change_meaning(content: bytes, chance: random.Random) -> bytes:
    """Change what the header says, as JSON that is well formed."""
    header, data = parts_of(content)
    try:
        values = json.loads(header)
    except (ValueError, RecursionError):
        return content
    if not isinstance(values, dict):
        return content
    tensors = [name for name, value in values.items() if isinstance(value, dict) and "shape" in value]
    if not tensors:
        values["x"] = chance.choice(ODD)
        return assembled(json.dumps(values).encode(), data, chance)
    name = chance.choice(tensors)
    entry = values[name]
    kind = chance.randrange(11)
    if kind == 0:
        entry["dtype"] = chance.choice((*DTYPE_BITS, "F31", "", *ODD))
    elif kind == 1:
        entry["shape"] = [chance.choice(NUMBERS) for _ in range(chance.randint(0, 40))]
    elif kind == 2:
        entry["data_offsets"] = [chance.choice(NUMBERS) for _ in range(chance.randint(0, 4))]
    elif kind == 3 and isinstance(entry.get("data_offsets"), list):  # holes, overlaps, the wrong way round
        entry["data_offsets"] = [
            one + chance.choice((-8, -1, 1, 8)) if isinstance(one, int) else one for one in entry["data_offsets"]
        ]
    elif kind == 4:
        entry[chance.choice(("dtype", "shape", "data_offsets", "more"))] = chance.choice(ODD)
    elif kind == 5:
        entry.pop(chance.choice(list(entry)))
    elif kind == 6:
        values[name] = chance.choice(ODD)
    elif kind == 7:
        values["twin"] = entry
    elif kind == 8:
        values["__metadata__"] = chance.choice(({"a": 1}, {"a": "b" * 1000}, *ODD))
    elif kind == 9:
        values[name + "\x1b[2J\u202e"] = values.pop(name)
    else:
        text = json.dumps(values)
        return assembled(
            (text[:-1] + ", " + text[1:]).encode("utf-8", "surrogatepass"), data, chance
        )  # every key twice
    return assembled(json.dumps(values).encode("utf-8", "surrogatepass"), data, chance)


def bomb(content: bytes, chance: random.Random) -> bytes:
    header = chance.choice(
        (
            b'{"a":' + b"[" * chance.randint(100, 50_000),
            b'{"a":' * chance.randint(100, 5_000) + b"1" + b"}" * 5_000,
            b'{"a":' + b"9" * chance.randint(20, 50_000) + b"}",
            b"{" + b",".join(b'"%d":{}' % number for number in range(chance.randint(1, 5_000))) + b"}",
            b"{" + b" " * chance.randint(1, 100_000) + b"}",
            b'{"' + b"\\u0041" * chance.randint(1, 10_000) + b'":{}}',
        )
    )
    return assembled(header, b"", chance)


def parts_of(content: bytes) -> tuple[bytes, bytes]:
    length = int.from_bytes(content[:8], "little")
    return (content[8 : 8 + length], content[8 + length :]) if length <= len(content) else (b"", b"")


DAMAGES = (
    *(flip_bits, insert_bytes, delete_bytes, cut, append, lie_about_the_header, random_bytes),
    *(replace_text,) * 4,
    *(change_meaning,) * 8,
    bomb,
)


def read(path: Path) -> dict[str, bytes]:
    """All tensors of a file, as bytes; those of a dtype that NumPy lacks are left out."""
    with SafetensorsFile(path) as opened:
        for name, info in opened.tensors.items():
            if info.dtype in ("F64", "F32", "F16", "BF16"):
                assert opened.read(name, "float64").shape == info.shape
        names = [name for name, info in opened.tensors.items() if info.dtype in NUMPY_DTYPES and info.dtype != "BOOL"]
        return {name: opened.read_stored(name).tobytes() for name in names}


def reason(error: CheckpointError, path: Path) -> str:
    """The kind of a refusal: its message without names and numbers."""
    text = str(error).removeprefix(f"{path}: ")
    assert text != str(error), f"the message does not begin with the file: {error}"
    assert text.isprintable(), f"the message could steer a terminal: {error!r}"
    text = re.sub(r"'.*?'|\".*?\"|[A-Z]+\d+[A-Z_\d]*|[^A-Za-z ]", "", text)
    return " ".join(text.split()[:5])


def check(content: bytes, path: Path) -> str:
    """Read one file; what became of it. An AssertionError or any other exception is a finding."""
    path.write_bytes(content)
    try:
        ours = read(path)
    except CheckpointError as error:
        return reason(error, path)
    theirs = {name: tensor["data"] for name, tensor in safetensors.deserialize(content)}
    for name, data in ours.items():
        assert bytes(theirs[name]) == data, f"tensor {name!r} differs from what the library reads"
    assert set(ours) <= set(theirs)
    return "read, as the library reads it"


def fuzz(files: int, seed: int, folder: Path, *, measured: int = 200) -> Counter[str]:
    """Check ``files`` files; the memory of every ``files / measured``-th is measured.

    Raises:
        AssertionError: naming the seed, and the file, which stays there.
    """
    seen: Counter[str] = Counter()
    path = folder / "model.safetensors"
    largest = 0
    for number in range(files):
        chance = random.Random(f"{seed} {number}")
        content = damaged(good_file(chance), chance)
        is_measured = number % max(1, files // measured) == 0
        try:
            if is_measured:
                tracemalloc.start()
            seen[check(content, path)] += 1
            if is_measured:
                growth = tracemalloc.get_traced_memory()[1] - len(content)
                largest = max(largest, growth)
                assert growth < MEMORY, f"{growth:,} bytes more than the file's were allocated"
        except Exception as error:
            raise AssertionError(
                f"file {number} of seed {seed}, kept as {path}: {type(error).__name__}: {error}"
            ) from error
        finally:
            if is_measured:
                tracemalloc.stop()
    seen["largest allocation beyond a file's size, in bytes"] = largest
    return seen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=20261127)
    options = parser.parse_args()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_SPACE, used + ADDRESS_SPACE))
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="minitl-fuzz-", dir=memory if os.access(memory, os.W_OK) else None))
    start = time.monotonic()
    try:
        seen = fuzz(options.files, options.seed, folder)
    except AssertionError as error:
        print(error, file=sys.stderr)
        return 1
    seconds = time.monotonic() - start
    for kind, count in sorted(seen.items(), key=lambda item: -item[1]):
        print(f"{count:>12,}  {kind}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{options.files:,} files in {seconds:.0f} s, {options.files / seconds:,.0f} a second; peak {peak:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
