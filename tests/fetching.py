"""A catalogue of one's own, whose models lie on the hub of `tests.hub`, and how they are fetched."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from models.fetch import main
from shared.catalog import TABLES
from shared.errors import CascadeError
from tests.hub import Hub

ROOT = TABLES.parent
PIN, PART_PIN = "a" * 40, "b" * 40
ROWS = f"""
[models.turbo]
source = "us/turbo"
revision = "{PIN}"
variant = "fp16"
pipeline = "StableDiffusionPipeline"
scheduler_settings = {{ timestep_spacing = "trailing" }}
steps = 1
guidance = 0.0
size = 64
memory_gib = 0.5
licence = "Apache-2.0"

[models.sharing]
source = "us/turbo"
revision = "{PIN}"
variant = "fp16"
pipeline = "StableDiffusionPipeline"
steps = 1
guidance = 0.0
size = 64
memory_gib = 0.5

[models.sharing.parts.unet]
source = "them/faster"
revision = "{PART_PIN}"
file = "faster_unet.safetensors"

[cascades.ours]
light = "turbo"
heavy = "sharing"
deadline_s = 5.0
gpu = "cpu"
metric = "fid"
discriminator = "weights/discriminator-ours"
discriminator_s = 0.0
safety_checker = "them/checker"
"""
UNET = "unet/diffusion_pytorch_model.fp16.safetensors"
# fp16 for some parts only, as some repositories have it, and beside what is needed what is not.
RENAMED = {
    "unet/diffusion_pytorch_model.safetensors": UNET,
    "text_encoder/model.safetensors": "text_encoder/model.fp16.safetensors",
}
NOT_NEEDED = {
    "unet/diffusion_pytorch_model.safetensors": b"the large one",
    "unet/diffusion_pytorch_model.bin": b"a pickle",
    "unet/diffusion_pytorch_model.non_ema.safetensors": b"another",
    "unet/diffusion_pytorch_model.fp16.bin": b"a pickle",
    "vae/model.onnx": b"for somebody else",
    "vae_1_0/diffusion_pytorch_model.safetensors": b"an older one",
    "safety_checker/model.fp16.safetensors": b"nobody loads it",
    "safety_checker/config.json": b"{}",
    "turbo.ckpt": b"a pickle",
    "turbo.safetensors": b"all in one file",
    "README.md": b"hello",
}


def pipeline_files() -> dict[str, bytes]:
    folder = TABLES / "tiny" / "light"
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    files = {RENAMED.get(path, path): content for path, content in files.items()}
    index = json.loads(files["model_index.json"])
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    return {**files, **NOT_NEEDED, "LICENSE.md": b"Be kind.", "model_index.json": json.dumps(index).encode()}


@dataclass
class Place:
    """A catalogue of one's own beside an empty folder of weights, and the hub that it is fetched from."""

    home: Path
    hub: Hub

    def command(self, *options: str) -> list[str]:
        return [sys.executable, "-m", "models.fetch", *options]

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        own = {"CASCADE_CATALOG": str(self.home / "own.toml"), "HF_ENDPOINT": self.hub.url, "COLUMNS": "250"}
        # Longer than the silence of a hub: one that was given up would be tried again by the same process.
        own |= {"HF_HUB_DOWNLOAD_TIMEOUT": "300", "HF_HOME": str(self.home), "no_proxy": "127.0.0.1"}
        return kept | own

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        """As people run it."""
        return subprocess.run(
            self.command(*options), cwd=ROOT, env=self.environment(), capture_output=True, text=True, timeout=120
        )

    def fetch(self, *options: str) -> str:
        """The same in this process; returns what it says."""
        said = io.StringIO()
        with redirect_stdout(said):
            assert main(options) == 0
        return said.getvalue()

    def refusal(self, *options: str) -> str:
        """The line that a fetch ends with."""
        with redirect_stdout(io.StringIO()), pytest.raises(CascadeError) as caught:
            main(options)
        return str(caught.value)

    @property
    def weights(self) -> Path:
        return self.home / "weights"

    def there(self, name: str) -> set[str]:
        folder = self.weights / name
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
