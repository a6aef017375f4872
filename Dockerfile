# Two stages: the first installs the packages, the second contains only what is needed to run.
FROM python:3.12-slim-bookworm AS build

WORKDIR /src
RUN python -m venv /opt/llada
# By hash: a package that was changed after it was locked is refused.
COPY deploy/image.lock ./
RUN /opt/llada/bin/pip install --no-cache-dir --no-compile --no-deps --require-hashes -r image.lock

# Package index for torch only; empty for the default index, whose build includes CUDA. PyTorch's own CPU index gives a
# much smaller image for machines without a GPU. Without a hash: every build of torch has its own.
ARG TORCH_INDEX_URL=
COPY requirements.lock ./
RUN /opt/llada/bin/pip install --no-cache-dir --no-compile ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} \
        "$(grep '^torch==' requirements.lock)"

COPY pyproject.toml README.md LICENSE ./
COPY llada_core llada_core
COPY server server
COPY clients clients
RUN /opt/llada/bin/pip install --no-cache-dir --no-compile --no-deps --no-build-isolation .

# Left out: the packages' tests, torch's headers for C++, the command of training, and pip. Byte code of all modules
# would be a fifth of the image, so only what the server imports is compiled; -I takes it from /opt, not from here.
RUN rm /opt/llada/bin/llada-train \
    && /opt/llada/bin/python -m pip uninstall --yes pip \
    && find /opt/llada -type d '(' -name test -o -name tests -o -path '*/torch/include' ')' -prune -exec rm -r {} + \
    && find /opt/llada -path '*/torch/bin/*' -type f ! -name torch_shm_manager -delete \
    && /opt/llada/bin/python -I -c "import server.app, llada_core; llada_core.LLM().generate('Hello')"

FROM python:3.12-slim-bookworm

# A model from the hub is stored in HF_HOME: mount a volume there to keep it. Files in LLADA_SECRETS_DIR set options.
# hadolint ignore=DL3064
ENV PATH=/opt/llada/bin:$PATH \
    HF_HOME=/var/cache/huggingface \
    HF_TOKEN_PATH=/run/secrets/hf_token \
    LLADA_SECRETS_DIR=/run/secrets \
    LLADA_HOST=0.0.0.0 \
    LLADA_PORT=8000 \
    LLADA_LOG_FORMAT=json \
    PYTHONUNBUFFERED=1
RUN useradd --uid 10001 --create-home llada \
    && install --directory --owner llada --group llada "$HF_HOME" \
    && install --directory "$LLADA_SECRETS_DIR"
COPY --from=build /opt/llada /opt/llada
# By number, so that Kubernetes can tell that it is not root.
USER 10001:10001
WORKDIR /home/llada
EXPOSE 8000
# The generous start period is for large checkpoints.
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"LLADA_PORT\"]}/health', timeout=2)"]
# Exec form: the server itself is process 1 and gets the SIGTERM.
CMD ["llada-server"]
