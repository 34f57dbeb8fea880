# EncDL as README sets it up. For GPUs start it with --gpus all; a smaller image for CPUs alone:
#   docker build -t encdl --build-arg PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu" .
# This file was written without a container engine at hand and has never been run.
FROM python:3.12-slim

RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc git libc6-dev make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /encdl
COPY . .
ARG PIP_ARGS=""
RUN make setup PIP_ARGS="--no-cache-dir ${PIP_ARGS}"
ENV PATH="/encdl/.venv/bin:${PATH}"

# What is made lies in my/ and runs/: mount them, -v "$PWD/my:/encdl/my" -v "$PWD/runs:/encdl/runs".
# docker run … encdl                       trains, as `make train-encryptor` does
# docker run … encdl encdl encrypt …       any other command of README
CMD ["make", "train-encryptor"]
