# Two stages: the first installs the packages, the second contains only what is needed to run.
FROM python:3.12-slim-bookworm AS build

# Package index for torch only; empty for the default index, whose build includes CUDA. PyTorch's own CPU index gives a
# much smaller image for machines without a GPU.
ARG TORCH_INDEX_URL=
WORKDIR /src
RUN python -m venv /opt/llada
COPY requirements.lock pyproject.toml README.md LICENSE ./
RUN /opt/llada/bin/pip install --no-cache-dir ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} \
        "$(grep '^torch==' requirements.lock)"
COPY llada_core llada_core
COPY server server
COPY training training
COPY clients clients
# The lock as constraints: its versions, without its test tools.
RUN grep -v '^torch==' requirements.lock > constraints.txt \
    && /opt/llada/bin/pip install --no-cache-dir -c constraints.txt .

FROM python:3.12-slim-bookworm

RUN useradd --create-home --uid 10001 llada
COPY --from=build /opt/llada /opt/llada
ENV PATH=/opt/llada/bin:$PATH \
    LLADA_HOST=0.0.0.0 \
    LLADA_PORT=8000 \
    LLADA_LOG_FORMAT=json \
    PYTHONUNBUFFERED=1
USER llada
WORKDIR /home/llada
EXPOSE 8000
# The generous start period is for large checkpoints.
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"LLADA_PORT\"]}/health', timeout=2)"]
# Exec form: the server itself is process 1 and gets the SIGTERM.
CMD ["llada-server"]
