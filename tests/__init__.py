"""Tests, named for what stays true. Servers are real; the model is faked only where its faults are the matter."""
