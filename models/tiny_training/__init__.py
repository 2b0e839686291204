"""How the tiny cascade is trained: each stage is a small file with a `Course` (how long, how fast) and a loss.

    text ──> denoiser ──┬─> light (an early snapshot) ──> discriminator, caption ──> measure ──> publish
    decoder ──> edges ──┼─> harder ──> heavy                       │
                        └──────────────────── attributes (the judge) ┘

Every random number is drawn from (seed, course, step, rank), so an interrupted run continues bit by bit where its
last checkpoint lies, and a checkpoint needs no state of a random generator.
"""

import os

# Before the first import of the libraries: nothing is fetched, and their notes on each import stay unsaid.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
