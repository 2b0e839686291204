"""Says how large a download will be before it starts; takes the arguments of `pip install`.

Runs before anything is installed, hence with the standard library only.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

TIMEOUT_S = 20.0


def resolve(arguments: Sequence[str]) -> list[Mapping[str, Any]]:
    """What pip would install, as its report lists it; empty where pip cannot say."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--report", "-", *arguments]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    return list(json.loads(said.stdout)["install"]) if said.returncode == 0 else []


def size_of(url: str) -> int | None:
    """Bytes behind an address, 0 for a file of this machine, None if its server does not say."""
    if urllib.parse.urlparse(url).scheme == "file":
        return 0
    try:
        request = urllib.request.Request(url, method="HEAD")
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return int(answer.headers["Content-Length"])
    except (OSError, TypeError, ValueError):
        return None


def summary(packages: Sequence[Mapping[str, Any]], sizes: Sequence[int | None]) -> str:
    """One line for people, and a hint where torch would bring CUDA along."""
    known = [size for size in sizes if size is not None]
    unknown = len(sizes) - len(known)
    line = f"{len(packages)} packages to install, {sum(known) / 1e6:,.0f} MB to download"
    line += f" and {unknown} of unknown size" if unknown else ""
    names = [str(package["metadata"]["name"]) for package in packages]
    local = sum(urllib.parse.urlparse(str(each["download_info"]["url"])).scheme == "file" for each in packages)
    line += f" ({local} lie on this machine)" if local else ""
    if any(name.startswith("nvidia-") for name in names):
        line += (
            "\ntorch comes with CUDA; without a GPU, save gigabytes with"
            " make TORCH_INDEX=https://download.pytorch.org/whl/cpu"
        )
    return line


def main() -> None:
    """Print the line; never stand in the way of the install that follows."""
    packages = resolve(sys.argv[1:])
    if not packages:
        sys.stdout.write("nothing to download, or pip cannot say how much\n")
        return
    with ThreadPoolExecutor(16) as pool:
        sizes = list(pool.map(size_of, (str(each["download_info"]["url"]) for each in packages)))
    sys.stdout.write(summary(packages, sizes) + "\n")


if __name__ == "__main__":
    main()
