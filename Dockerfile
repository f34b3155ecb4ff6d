# ContextLM on NVIDIA's PyTorch image.
#
#     docker build -t contextlm .
#     mkdir -p runs
#     docker run --rm -it --gpus all --ipc host --user "$(id -u):$(id -g)" --env HOME=/tmp \
#       -v "$PWD/runs:/opt/contextlm/runs" contextlm make quickstart
#
# 25.04 (PyTorch 2.7, CUDA 12.9, Transformer Engine 2.2) is a release that Megatron Core names as supported; its
# PyTorch, NCCL and Transformer Engine are built for each other, so they are kept as they are. Another one:
# --build-arg BASE=nvcr.io/nvidia/pytorch:YY.MM-py3
ARG BASE=nvcr.io/nvidia/pytorch:25.04-py3
FROM ${BASE}

# The image pins each of its packages through this file, which also binds packages that are not in it yet.
# environment/bootstrap.sh holds the one that matters, torch, by itself.
ENV PIP_CONSTRAINT=

# Not root: what a run writes to a mounted folder then belongs to an ordinary user.
RUN useradd --create-home --shell /bin/bash contextlm \
    && install -d -o contextlm -g contextlm /opt/contextlm
USER contextlm
WORKDIR /opt/contextlm

# The packages are a layer of their own: it is rebuilt only when the files named here change. The editable
# installation points at this folder, so it sees the sources that come with the last COPY.
COPY --chown=contextlm:contextlm pyproject.toml LICENSE ./
COPY --chown=contextlm:contextlm environment environment
COPY --chown=contextlm:contextlm contextlm/__init__.py contextlm/__init__.py
RUN bash environment/bootstrap.sh && rm -rf ~/.cache/pip

COPY --chown=contextlm:contextlm . .
ENV PATH=/opt/contextlm/.venv/bin:$PATH
CMD ["bash"]
