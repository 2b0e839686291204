"""`make serve`: the whole cascade behind HTTP on this machine, until Ctrl-C.

Redis ── supervisord (control, keeper, agent, workers, gateway) ── http://127.0.0.1:8000
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import socket
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final

from rich.console import Console

from deploy.demo import slots_that_fit
from deploy.progress import Say, in_words, timed, workers_ready
from deploy.results import end_on_sigterm, new_folder
from deploy.runner import PATIENCE_S, Deployment, Run, deployment, not_loading, settings_here
from services.gateway.__main__ import check_open
from shared.catalog import load_cascade
from shared.config import PREFIX, Settings
from shared.errors import CascadeError
from shared.keyring import read_keyring
from shared.process import guarded

LOOK_S: Final = 0.2
SILENT: Final = "the gateway does not answer"
# As the README has it, so that both are tried as they are printed.
CURL: Final = """\
curl -sSf {url}/v1/images/generations -H 'Content-Type: application/json'{key} \\
  -d '{{"prompt": "big blue circle left of big orange triangle on black"}}' | \\
  grep -o '"b64_json":"[^"]*' | cut -d'"' -f4 | base64 -d > picture.webp
"""
KEY: Final = " -H 'Authorization: Bearer KEY'"
_HELLO: Final = """\
Ready: pictures can be drawn. {url} has a page to look at and to try prompts on, and the images API is at {url}/v1:

{curl}
In another terminal, for what happens inside:

export {environment}
.venv/bin/python -m services.ctl status

Logs are in {logs}; Ctrl-C ends it.
"""


def main() -> int:
    """Serve until Ctrl-C or SIGTERM."""
    given = _arguments()
    end_on_sigterm()
    console = Console(force_terminal=sys.stdout.isatty(), emoji=False)
    slots = given.slots or (1 if given.backend == "sleeping" else slots_here())
    settings = settings_here(
        cascade=given.cascade,
        backend=given.backend,
        slots=slots,
        policy=given.policy,
        node="serve",
        deployment="serve",
        http_host=given.host,
        http_port=given.port,
        http_keys=given.keys and given.keys.resolve(),
    )
    check_sound(settings)
    check_free(settings)
    folder = given.out or new_folder("serve")
    folder.mkdir(parents=True, exist_ok=True)
    console.print(
        f"starting Redis, planner, keeper, gateway and {slots} slots of {settings.cascade} ...", highlight=False
    )
    with deployment(Run(folder, settings, folder, nice=5, gateway=True)) as running:
        url = address(settings)
        with timed(console) as say:
            wait_ready(running, url, say)
            # Wrapped, a command would no longer be one that can be copied.
            console.print(greeting(running.settings), markup=False, highlight=False, soft_wrap=True)
            wait_complete(running, say)
        while True:
            running.supervisord.check()
            time.sleep(1.0)


def slots_here() -> int:
    """As many slots as memory and processors carry: with fewer processors than slots the first picture waits longer."""
    return min(slots_that_fit(), max(2, len(os.sched_getaffinity(0))))


def greeting(settings: Settings) -> str:
    """What to do now, each command as it can be copied."""
    url, keyed = address(settings), settings.http_keys is not None
    told = {
        "REDIS_URL": settings.redis_url,
        f"{PREFIX}DEPLOYMENT": settings.deployment,
        f"{PREFIX}CASCADE": settings.cascade,
    }
    return _HELLO.format(
        url=url,
        curl=CURL.format(url=url, key=KEY if keyed else ""),
        environment=" ".join(f"{name}={shlex.quote(value)}" for name, value in told.items()),
        logs=settings.log_dir,
    )


def address(settings: Settings) -> str:
    """Where a browser on this machine finds the gateway."""
    host = "127.0.0.1" if settings.http_host in ("0.0.0.0", "::") else settings.http_host
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.http_port}"


def check_sound(settings: Settings) -> None:
    """Raise SettingsError at once for what each service would say into its own log, again and again."""
    load_cascade(settings.cascade)
    check_open(settings)
    if settings.http_keys is not None:
        read_keyring(settings.http_keys)


def check_free(settings: Settings) -> None:
    """Raise CascadeError where somebody else listens on the port."""
    try:
        with socket.create_server((settings.http_host, settings.http_port)):
            pass
    except OSError as wrong:
        raise CascadeError(
            f"{settings.http_host}:{settings.http_port} cannot be had ({wrong.strerror}): choose another with PORT=8001"
        ) from None


def wait_ready(running: Deployment, url: str, say: Say = lambda _: None) -> None:
    """Wait until a picture can be drawn; raises CascadeError with what is missing. `say` gets it at each look."""
    end = time.monotonic() + PATIENCE_S
    while missing := lacking(url):
        running.supervisord.check()
        workers = running.observer.workers()
        if wrong := not_loading(workers):
            raise CascadeError(wrong)
        say(f"{in_words(workers_ready(workers, running.settings))}; waiting for {awaited(missing)}")
        if time.monotonic() > end:
            raise CascadeError(f"not ready: {missing}; see {running.settings.log_dir}")
        time.sleep(LOOK_S)
    say(in_words(workers_ready(running.observer.workers(), running.settings)))


def awaited(missing: str) -> str:
    """What comes next; `missing` names all that a gateway lacks, in words for somebody whose start has failed."""
    if missing.startswith(SILENT):
        return "the gateway"
    if missing.startswith("Redis "):
        return "Redis"
    return "the light model" if "no light worker is ready" in missing else "the plan"


def wait_complete(running: Deployment, say: Say, patience_s: float = PATIENCE_S) -> None:
    """Say how many workers are ready until all are or patience ends, and why a model does not load.

    That raises nothing: one light worker is enough for a picture.
    """
    end = time.monotonic() + patience_s
    wrong, counted = "", ""
    while True:
        running.supervisord.check()
        workers = running.observer.workers()
        ready = workers_ready(workers, running.settings)
        before, counted = counted, in_words(ready)
        complete = all(loaded >= started for loaded, started in ready.values())
        # Between two attempts to load, nobody says of the one that failed.
        wrong = "" if complete else not_loading(workers) or (wrong if counted == before else "")
        late = not complete and time.monotonic() >= end
        given_up = f"waited {patience_s:.0f} s for all, see {running.settings.log_dir}" if late else ""
        say("; ".join(filter(None, (counted, wrong, given_up))))
        if complete or late:
            return
        time.sleep(LOOK_S)


def lacking(url: str) -> str:
    """What the gateway says is missing; nothing where a picture can be drawn."""
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5):
            return ""
    except urllib.error.HTTPError as wrong:
        return "; ".join(json.loads(wrong.read())["missing"])
    except OSError as wrong:
        reason = getattr(wrong, "reason", wrong)
        return f"{SILENT} ({getattr(reason, 'strerror', None) or reason})"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; beyond this machine it wants --keys")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--keys", type=Path, help="file with API keys: services.ctl --http-keys FILE key add NAME")
    parser.add_argument("--cascade", default="tiny")
    parser.add_argument("--backend", default="diffusers", choices=["diffusers", "sleeping"])
    parser.add_argument("--policy", default="quality")
    parser.add_argument(
        "--slots", type=int, help="slots that draw; default: as many as memory and processors carry, at most 4"
    )
    parser.add_argument("--out", type=Path, help="folder of the logs; default: logs/serve-<time>")
    return parser.parse_args()


if __name__ == "__main__":
    guarded(main)
