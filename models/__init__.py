"""Prompts in, images out: loaders, the discriminator, the profiler, a backend that sleeps instead of drawing,
and the tiny cascade with its weights, its captioned scenes and its training.
Imports `shared` and nothing else of ours."""
