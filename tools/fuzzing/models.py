"""Readers of models: model files (safetensors) and ONNX folders.

Most damaged files get right ids and digests again, so that the damage reaches what lies behind the checks.
"""

import hashlib
import json
import shutil
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from safetensors.numpy import load as load_tensors

from fuzzing.container import GOLDEN, MAX_PIXELS, Seed, build_file, parse_fields
from fuzzing.reader import Files, change_json, damage, json_text, noise
from ohmq.codec import Codec
from ohmq.errors import BitstreamError, ModelFileError
from ohmq.model_files.export_onnx import export_onnx
from ohmq.model_files.frozen_model import load_model
from ohmq.model_files.identity import bitstream_digest, content_digest, content_id, transforms_digest
from ohmq.model_files.onnx_folder import load_onnx
from ohmq.models.config import config_from_dict


class TensorFile(NamedTuple):
    """A safetensors file in parts.

    Attributes:
        entries: its JSON header, with the metadata.
        body: bytes of the tensors.
    """

    entries: dict[str, Any]
    body: bytes

    @classmethod
    def parse(cls, data: bytes) -> "TensorFile":
        """Divide a valid file."""
        (size,) = struct.unpack("<Q", data[:8])
        return cls(json.loads(data[8 : 8 + size]), data[8 + size :])

    def build(self, header: str | None = None) -> bytes:
        """Join the parts; ``header`` takes the place of the JSON header."""
        text = (json.dumps(self.entries) if header is None else header).encode(errors="surrogatepass")
        return struct.pack("<Q", len(text)) + text + self.body

    def with_record(self, key: str, record: str) -> "TensorFile":
        """Return the file with other metadata under this key."""
        entries = dict(self.entries)
        entries["__metadata__"] = {key: record}
        return self._replace(entries=entries)


def change_tensors(random: Random, file: TensorFile) -> TensorFile:
    """Change values, shapes, types, names or places of tensors."""
    entries = {name: dict(entry) for name, entry in file.entries.items()}
    body = file.body
    names = [name for name in entries if name != "__metadata__"]
    name = random.choice(names)
    entry = entries[name]
    start, end = entry["data_offsets"]
    kind = random.randrange(8)
    if kind < 3 and end > start:
        changed = bytearray(body)
        for _ in range(random.choice((1, 1, 3, 20))):
            place = random.randrange(start, end)
            changed[place] = random.choice((0, 127, 128, 255, random.randrange(256)))
        if random.random() < 0.2:
            changed[start:end] = random.choice((b"\xff", b"\x7f", b"\0", b"\x80")) * (end - start)
        body = bytes(changed)
    elif kind == 3:
        entry["dtype"] = random.choice(("F32", "F16", "I16", "I32", "I64", "U8", "F64", "BOOL", "BF16", "F8_E4M3", "X"))
    elif kind == 4:
        shape = list(entry["shape"])
        random.shuffle(shape)
        entry["shape"] = random.choice((shape, shape[::-1], [*shape, 1], [int(np.prod(shape))], [], [0], [-1], [2**40]))
    elif kind == 5:
        other = entries[random.choice(names)]
        entries[name] = {**other, "data_offsets": random.choice((other, entry))["data_offsets"]}
    elif kind == 6:
        entries[random.choice(("x", "filters.weight", "prior.x", "prior.logits", random.choice(names)))] = entries.pop(
            name
        )
    else:
        # Remove a tensor with its bytes, so that the rest stays a valid file.
        del entries[name]
        body = body[:start] + body[end:]
        for kept, value in entries.items():
            if kept != "__metadata__" and value["data_offsets"][0] >= end:
                value["data_offsets"] = [offset - (end - start) for offset in value["data_offsets"]]
    return TensorFile(entries, body)


class ModelFiles:
    """Model files, and a file of the model's that is decoded if the model loads.

    Args:
        seeds: valid ``.ohm`` files, by model.
        folder: for the file that is read.
    """

    name, share = "model file", 10.0
    allowed: tuple[type[Exception], ...] = (ModelFileError, BitstreamError)

    def __init__(self, seeds: Sequence[Seed], folder: Path) -> None:
        self.folder = folder
        self.models = {path.stem: path.read_bytes() for path in sorted(GOLDEN.glob("*.safetensors"))}
        self.images = {
            name: next(seed.data for seed in seeds if seed.name.startswith(f"{name}_")) for name in self.models
        }
        # Photo models take ten times as long to load as the others.
        self.weights = [0.1 if name in ("photo", "neighbours", "filters") else 1.0 for name in self.models]

    def make(self, random: Random) -> Files:
        """Damage a model file."""
        name = random.choices(list(self.models), self.weights)[0]
        data = self.models[name]
        kind = random.randrange(10)
        if kind == 0:
            return {f"{name}.safetensors": damage(random, data, random.choice(list(self.models.values())))}
        file = TensorFile.parse(data)
        record = json.loads(file.entries["__metadata__"]["ohmq"])
        if kind == 1:
            header = json_text(random, change_json(random, file.entries))
            return {f"{name}.safetensors": file.build(header)}
        if kind < 6:
            file = change_tensors(random, file)
        if kind > 4:
            record = change_json(random, record)
            if isinstance(record, dict) and isinstance(record.get("config"), dict) and random.random() < 0.6:
                record["config"] = change_json(random, record["config"])
        if random.random() < 0.9:
            record = self.signed(file, record)
        return {f"{name}.safetensors": file.with_record("ohmq", json_text(random, record)).build()}

    def signed(self, file: TensorFile, record: Any) -> Any:
        """Give a record the ids and digests of its content, where it has a content."""
        try:
            config, tensors = config_from_dict(record["config"]), load_tensors(file.build())
            if record["format"] == 1:
                return {**record, "model_id": content_id(config, tensors).hex()}
            return {
                **record,
                "bitstream_sha256": bitstream_digest(config, tensors).hex(),
                "transforms_sha256": transforms_digest(config, tensors).hex(),
            }
        except Exception:  # nothing that can be hashed: the reader is to say so
            return record

    def read(self, files: Files) -> str:
        """Load the model; if it loads, decode a file with it."""
        ((name, data),) = files.items()
        path = self.folder / "fuzz.safetensors"
        path.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            codec = Codec(load_model(path), compiled=False)
            decode_image(codec, self.images[name.removesuffix(".safetensors")])
        return "decoded"


def decode_image(codec: Codec, data: bytes) -> None:
    """Decode a file, whatever model made it."""
    data = build_file(parse_fields(data)._replace(model_id=codec.model_id))
    file, symbols = codec.decode(data, max_pixels=MAX_PIXELS)
    codec.synthesise(symbols, file.num_channels)


class OnnxFolders:
    """ONNX folders, and a file that is decoded if the folder loads.

    Args:
        seeds: valid ``.ohm`` files, by model.
        folder: for the folder that is read.
    """

    name, share = "ONNX folder", 4.0
    allowed: tuple[type[Exception], ...] = (ModelFileError, BitstreamError)

    def __init__(self, seeds: Sequence[Seed], folder: Path) -> None:
        onnxruntime.set_default_logger_severity(4)  # damaged graphs are no news
        self.folder = folder / "onnx"
        self.folders: dict[str, Files] = {}
        for name in ("integer", "context"):
            made = folder / f"onnx-{name}"
            export_onnx(load_model(GOLDEN / f"{name}.safetensors"), made)
            self.folders[name] = {path.name: path.read_bytes() for path in sorted(made.iterdir())}
        self.images = {
            name: next(seed.data for seed in seeds if seed.name.startswith(f"{name}_")) for name in self.folders
        }

    def make(self, random: Random) -> Files:
        """Damage a folder, mostly under right checksums."""
        name = random.choice(list(self.folders))
        files = dict(self.folders[name])
        kind = random.randrange(10)
        member = random.choice(list(files))
        if kind == 0:
            del files[member]
        elif kind == 1:
            files[member] = damage(random, files[member], random.choice(list(files.values())))
        else:
            tensors = TensorFile.parse(files["model.safetensors"])
            record = json.loads(tensors.entries["__metadata__"]["ohmq_onnx"])
            if kind < 5:
                graph = random.choice(("analysis", "synthesis"))
                files[f"{graph}.onnx"] = damage(random, files[f"{graph}.onnx"], random.choice(list(files.values())))
            elif kind < 7:
                tensors = change_tensors(random, tensors)
            else:
                record = change_json(random, record)
            if random.random() < 0.9:
                record = self.signed(tensors, record, files)
            files["model.safetensors"] = tensors.with_record("ohmq_onnx", json_text(random, record)).build()
        if random.random() < 0.02:
            files["model.safetensors"] = noise(random, files.get("model.safetensors", b""))
        return {f"{name}/{member}": data for member, data in files.items()}

    def signed(self, tensors: TensorFile, record: Any, files: Files) -> Any:
        """Give a record the checksums of its folder, where it can have any."""
        try:
            sums = {part: hashlib.sha256(files[f"{part}.onnx"]).hexdigest() for part in ("analysis", "synthesis")}
            if "tensors" in record["sha256"]:
                content = content_digest(config_from_dict(record["config"]), load_tensors(tensors.build()))
                sums["tensors"] = content.hex()
            return {**record, "sha256": sums}
        except Exception:  # nothing that can be hashed: the reader is to say so
            return record

    def read(self, files: Files) -> str:
        """Load the folder; if it loads, decode a file with it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        model = "integer"
        for name, data in files.items():
            model, member = name.split("/")
            (self.folder / member).write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            codec = Codec(load_onnx(self.folder), compiled=False)
            decode_image(codec, self.images[model])
        return "decoded"
