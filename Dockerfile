# ContextLM in a container: on NVIDIA's PyTorch image, for GPUs, or on Debian, for trying it out without one.
#
#     docker build -t contextlm .
#     docker build --target cpu -t contextlm-cpu .
#     docker run --rm --init --shm-size 1g contextlm-cpu make quickstart
#
# docs/containers.md has more, the README the lines for GPUs and many nodes.
#
# 25.11 (PyTorch 2.10, CUDA 13.0) is the release in which Megatron Core 0.16.1 is built and tested by its authors, and its
# Transformer Engine, 2.9, is one that Megatron Core asks for (2.9 to 2.11). What it has of torch, NCCL, Transformer Engine
# and apex is built for each other, so it stays as it is. Another release: --build-arg BASE=nvcr.io/nvidia/pytorch:YY.MM-py3
ARG BASE=nvcr.io/nvidia/pytorch:25.11-py3

FROM debian:bookworm-slim AS cpu
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates make python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*

# Not root: what a run writes to a mounted folder then belongs to an ordinary user. By number, since Kubernetes takes
# no name for a proof that it is not root.
RUN useradd --uid 10001 --create-home --shell /bin/bash contextlm \
    && install -d -o contextlm -g contextlm /opt/contextlm
USER 10001:10001
WORKDIR /opt/contextlm

# The packages are a layer of their own: it is rebuilt only when the files named here change. The editable
# installation points at this folder, so it sees the sources that come with the last COPY.
COPY --chown=contextlm:contextlm pyproject.toml LICENSE ./
COPY --chown=contextlm:contextlm environment environment
COPY --chown=contextlm:contextlm contextlm/__init__.py contextlm/__init__.py
RUN bash environment/bootstrap.sh && rm -rf ~/.cache/pip

COPY --chown=contextlm:contextlm . .
# --user may name a user whom the image does not know: libraries that ask for a name take this one.
ENV PATH=/opt/contextlm/.venv/bin:$PATH USER=contextlm PYTHONUNBUFFERED=1
CMD ["bash"]

# The same on NVIDIA's image; the last stage is the one that is built if none is named.
FROM ${BASE}
# The image pins each of its packages through this file, which also binds packages that are not in it yet.
# environment/bootstrap.sh holds the one that matters, torch, by itself.
ENV PIP_CONSTRAINT=
RUN useradd --uid 10001 --create-home --shell /bin/bash contextlm \
    && install -d -o contextlm -g contextlm /opt/contextlm
USER 10001:10001
WORKDIR /opt/contextlm
COPY --chown=contextlm:contextlm pyproject.toml LICENSE ./
COPY --chown=contextlm:contextlm environment environment
COPY --chown=contextlm:contextlm contextlm/__init__.py contextlm/__init__.py
RUN bash environment/bootstrap.sh && rm -rf ~/.cache/pip
COPY --chown=contextlm:contextlm . .
ENV PATH=/opt/contextlm/.venv/bin:$PATH USER=contextlm PYTHONUNBUFFERED=1
CMD ["bash"]
