# Two images from one file:
#   docker build --target training   -t mnist-mlops:train .   the whole pipeline
#   docker build --target production -t mnist-mlops:prod .    predicts with a released model, rechecks runs; no torch
# The CPU wheels of torch, a tenth of the size: --build-arg TORCH_INDEX=URL
ARG BASE_IMAGE=ubuntu:22.04

FROM ${BASE_IMAGE} AS base
ENV DEBIAN_FRONTEND=noninteractive PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/venv/bin:$PATH
RUN apt-get update && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /app
# /app/artifacts is usually mounted; whoever runs the container may write into the rest.
RUN mkdir -p artifacts data logs && chmod 1777 /app artifacts data logs
ENV HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib

FROM base AS build
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/venv && pip install --upgrade pip "setuptools>=77" wheel
COPY settings.ini setup.py pyproject.toml README.md LICENSE /src/
COPY mnist_nbdev /src/mnist_nbdev
COPY config /src/config
COPY nbs/pipeline /src/nbs/pipeline

FROM build AS build-production
RUN pip install --no-deps --no-build-isolation /src \
    && pip install numpy scipy scikit-learn onnx onnxruntime pillow pydantic PyYAML typer tqdm filelock \
    # Nobody installs or tests packages there.
    && find /opt/venv -type d -name tests -prune -exec rm -rf {} + \
    && pip uninstall -y --quiet setuptools wheel pip

FROM build AS build-training
ARG TORCH_INDEX=""
RUN if [ -n "$TORCH_INDEX" ]; then pip install --index-url "$TORCH_INDEX" torch torchvision; fi \
    && pip install --no-build-isolation /src

FROM base AS production
COPY --from=build-production /opt/venv /opt/venv
USER 1000:1000
ENTRYPOINT ["mnist-nbdev"]
CMD ["--help"]

FROM base AS training
COPY --from=build-training /opt/venv /opt/venv
# A mounted artifacts folder belongs to whoever made it: root is needed to write into any of them,
# and gives itself up for that owner before anything runs.
COPY --chmod=755 docs/docker-entrypoint /usr/local/bin/docker-entrypoint
ENTRYPOINT ["docker-entrypoint"]
CMD ["run", "--exit-zero"]
