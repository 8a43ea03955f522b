"""ONNX Runtime Web, which `noisewise export --to html` puts into a page: fetched and packed.

    python .ci/vendor.py write [VERSION]    from npm; default: the version that is here
    python .ci/vendor.py check              compare with the recorded digests; no network

Needs npm to write. The single file of the WebAssembly build is taken: it runs in one thread, from a
file on a disk. It is packed by LZMA, which the page unpacks (lzma.js).
"""

from __future__ import annotations

import hashlib
import json
import lzma
import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / "src" / "noisewise" / "export" / "web" / "vendor"
LISTING = PLACE / "vendored.json"
CODE = "ort.wasm.bundle.min.mjs"
WASM = "ort-wasm-simd-threaded.wasm"
HOW = {"id": lzma.FILTER_LZMA1, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 24}


def main(words: list[str]) -> int:
    """Write or check, by the first word."""
    if words[:1] == ["write"]:
        write(words[1] if len(words) > 1 else json.loads(LISTING.read_text())["version"])
        return 0
    wrong = check()
    print("\n".join(wrong) or "as recorded")
    return bool(wrong)


def write(version: str) -> None:
    """Fetch a version, pack it, record the digests; the licence text stays (npm ships none)."""
    package = f"onnxruntime-web@{version}"
    with TemporaryDirectory() as folder:
        done = subprocess.run(
            ["npm", "pack", "--silent", package],
            cwd=folder, check=True, capture_output=True, text=True,
        )  # fmt: skip
        archive = Path(folder) / done.stdout.split()[-1]
        with tarfile.open(archive) as files:
            code, wasm = (_member(files, name) for name in (CODE, WASM))
        listing = {
            "name": "onnxruntime-web",
            "version": version,
            "license": "MIT",
            "from": package,
            "sha256": {archive.name: digest(archive.read_bytes()), CODE: digest(code)},
        }
    listing["sha256"][WASM] = digest(wasm)
    packed = lzma.compress(wasm, lzma.FORMAT_ALONE, filters=[HOW])
    PLACE.mkdir(parents=True, exist_ok=True)
    (PLACE / CODE).write_bytes(code)
    (PLACE / f"{WASM}.lzma").write_bytes(packed)
    LISTING.write_text(json.dumps(listing, indent=2) + "\n")
    print(f"{package}: {len(wasm):,} bytes packed into {len(packed):,}")


def check() -> list[str]:
    """What differs from its digest, one line each."""
    recorded = json.loads(LISTING.read_text())["sha256"]
    found = {
        CODE: (PLACE / CODE).read_bytes(),
        WASM: lzma.decompress((PLACE / f"{WASM}.lzma").read_bytes()),
    }
    return [f"{name} differs" for name, data in found.items() if digest(data) != recorded[name]]


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def _member(files: tarfile.TarFile, name: str) -> bytes:
    member = files.extractfile(f"package/dist/{name}")
    assert member is not None
    return member.read()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
