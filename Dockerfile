# Four images from one file:
#   docker build --target production  -t mnist-mlops:prod .   predicts with a released model, verifies runs; no torch
#   docker build --target training    -t mnist-mlops:train .  the whole pipeline
#   docker build --target evaluation  -t mnist-mlops:eval .   the same packages; evaluates a trained model
#   docker build --target development -t mnist-mlops:dev .    JupyterLab on the project folder
# All packages come from the lock files, each checked against its hash. torch's CPU wheels, a tenth of the size,
# have other hashes than PyPI's: --build-arg TORCH_INDEX=URL trusts that index for torch alone.
ARG BASE_IMAGE=ubuntu:22.04

FROM ${BASE_IMAGE} AS base
LABEL org.opencontainers.image.title="mnist-nbdev" \
      org.opencontainers.image.description="Notebooks that train MNIST digits and decide whether the model may ship" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/mnist-nbdev/mnist-nbdev"
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PATH=/opt/venv/bin:$PATH
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 \
    && apt-get clean && rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/*
WORKDIR /app
# Usually mounted. Any user id may write to them.
RUN mkdir artifacts data logs && chown 1000:1000 . artifacts data logs && chmod 1777 . artifacts data logs
# There is no home directory: caches and settings of packages go to a temporary folder.
ENV HOME=/tmp

FROM base AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/* && python3 -m venv /opt/venv
COPY *.lock .ci/install /src/

FROM build AS build-production
RUN /src/install /opt/venv/bin/python /src/requirements-production.lock
COPY . /src
# The production image neither installs nor tests packages.
RUN pip install --no-deps --no-build-isolation /src \
    && find /opt/venv -type d -name tests -prune -exec rm -rf {} + \
    && pip uninstall -y --quiet setuptools pip

FROM build AS build-training
ARG TORCH_INDEX=""
RUN /src/install /opt/venv/bin/python /src/requirements.lock
COPY . /src
RUN pip install --no-deps --no-build-isolation /src

FROM build AS build-development
ARG TORCH_INDEX=""
RUN /src/install /opt/venv/bin/python /src/requirements-development.lock
# Editable: the package is the project folder, which is usually mounted there.
COPY . /app
RUN pip install --no-deps --no-build-isolation --editable /app

FROM base AS production
COPY --from=build-production /opt/venv /opt/venv
VOLUME ["/app/artifacts", "/app/data", "/app/logs"]
USER 1000:1000
HEALTHCHECK --interval=60s --timeout=20s CMD ["mnist-nbdev", "config", "show", "--json"]
ENTRYPOINT ["mnist-nbdev"]
CMD ["--help"]

# A mounted folder may have any owner. The entrypoint starts as root and switches to that owner before it runs the
# command.
FROM base AS training
COPY --from=build-training /opt/venv /opt/venv
COPY --chmod=755 docs/docker-entrypoint /usr/local/bin/docker-entrypoint
VOLUME ["/app/artifacts", "/app/data", "/app/logs"]
HEALTHCHECK --interval=60s --timeout=20s CMD ["mnist-nbdev", "config", "show", "--json"]
ENTRYPOINT ["docker-entrypoint", "/app", "mnist-nbdev"]
CMD ["run", "--exit-zero"]

FROM training AS evaluation
CMD ["run", "--exit-zero", "--mode", "evaluate"]

FROM base AS development
# git filters and merges the notebooks; make runs the checks of CI.
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends git make \
    && apt-get clean && rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/*
COPY --from=build-development /opt/venv /opt/venv
COPY --chmod=755 docs/docker-entrypoint /usr/local/bin/docker-entrypoint
COPY --chown=1000:1000 . .
EXPOSE 8888
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
    CMD ["python3", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8888/api')"]
ENTRYPOINT ["docker-entrypoint", "/app"]
# The token is JUPYTER_TOKEN, or a generated one that the log shows. In a rootless engine, root is the host's user.
CMD ["jupyter", "lab", "--no-browser", "--ip=0.0.0.0", "--allow-root", "--ServerApp.root_dir=/app"]
