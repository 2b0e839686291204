"""The doctor's parts: what is to be said of Redis, and what of this machine; run by `python -m services.doctor`."""
