"""What a run left behind, read back and told: its recording, its summary, its figures, its page.

Start with `recording.py` (the files of a run) and `summary.py` (the figures that every run is judged by).
"""
