# Three images from one file. BuildKit (the default builder) is needed for the cache mounts.
#   docker build                      -t trueprob:cpu .
#   docker build --target service-gpu -t trueprob:gpu .
#   docker build --target trainer     -t trueprob:trainer --build-arg PIP_OPTIONS="..." .
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# What every image has: Python and a user without rights. The packages of each image are in locks/
# with their hashes (`make lock`), and pip takes no other file. -------------------------------------
FROM ${PYTHON_IMAGE} AS base
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
# A fixed number, so that files in volumes keep their owner from one image to the next.
RUN groupadd --gid 10001 trueprob \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/trueprob \
      --shell /usr/sbin/nologin trueprob
WORKDIR /app

# Our own code as a wheel: the images hold neither the source tree nor tests. ----------------------
FROM base AS wheel
COPY pyproject.toml README.md LICENSE ./
COPY models/ models/
COPY trueprob/ trueprob/
COPY service/ service/
COPY trainer/ trainer/
RUN --mount=type=cache,target=/root/.cache/pip \
    pip wheel --no-deps --wheel-dir /wheels .

# What both services share. ------------------------------------------------------------------------
FROM base AS service-base
# glibc moves its mmap threshold as it goes, and with it large arrays between mmap and the heap:
# the same server then answers 256×1000 .npy bodies at 300 to 1 050 requests a second from run to
# run. Fixed thresholds settle it.
ENV MALLOC_MMAP_THRESHOLD_=268435456 \
    MALLOC_TRIM_THRESHOLD_=1073741824
# Beyond loopback the service starts only with TRUEPROB_API_KEYS_FILE, or with
# TRUEPROB_ALLOW_ANONYMOUS=true where something else keeps strangers out.
ENV TRUEPROB_HOST=0.0.0.0 \
    TRUEPROB_PORT=8000 \
    TRUEPROB_STATE_DIR=/var/lib/trueprob \
    TRUEPROB_MODEL_REPOSITORY=/app/models
# The state: database and uploaded sets. A named volume takes over this owner.
RUN install -d -o trueprob -g trueprob -m 0750 /var/lib/trueprob
VOLUME /var/lib/trueprob
EXPOSE 8000
# Alive is whatever answers below 500, a 401 included (TRUEPROB_REQUIRE_KEY_EVERYWHERE). http.client,
# not urllib.request: a proxy in the environment is not asked for our own address.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import http.client as h, os, ssl, sys; port = int(os.environ['TRUEPROB_PORT']); tls = os.environ.get('TRUEPROB_TLS_CERT'); c = h.HTTPSConnection('127.0.0.1', port, timeout=4, context=ssl._create_unverified_context()) if tls else h.HTTPConnection('127.0.0.1', port, timeout=4); c.request('GET', '/v2/health/live'); sys.exit(c.getresponse().status >= 500)"]
ENTRYPOINT ["python", "-m", "trueprob_service"]
CMD ["serve"]

# The service on a GPU. CUDA and cuDNN come as wheels with onnxruntime-gpu (over a gigabyte), so the
# base image stays small; the host brings the driver and NVIDIA's container toolkit. ---------------
FROM service-base AS service-gpu
ENV TRUEPROB_EXECUTION_PROVIDERS=cuda,cpu \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY locks/service-gpu.txt ./requirements.txt
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --require-hashes --requirement requirements.txt
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-deps --no-index /wheels/*.whl
COPY models/ models/
ARG SOURCE_COMMIT=unknown
ENV SOURCE_COMMIT=${SOURCE_COMMIT}
USER 10001:10001

# The trainer. On Linux pip's default torch is the CUDA build, gigabytes of it. For the CPU build
# take the index address that PyTorch's install selector shows and pass it on:
#   docker build --target trainer --build-arg PIP_OPTIONS="--extra-index-url ADDRESS" .
# (extra: the other pinned packages still come from the usual index.) The lock has no hashes of that
# build, so the versions are pinned then, and the files are not. ------------------------------------
FROM base AS trainer
ARG PIP_OPTIONS=""
COPY constraints.txt ./
COPY locks/trainer.txt ./requirements.txt
# hadolint ignore=SC2086 # several options may be given
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    if [ -n "${PIP_OPTIONS}" ]; then \
      pip install --constraint constraints.txt ${PIP_OPTIONS} "$(echo /wheels/*.whl)[trainer,cpu,cli]"; \
    else \
      pip install --require-hashes --requirement requirements.txt \
      && pip install --no-deps --no-index /wheels/*.whl; \
    fi
# Where runs are written; mount a volume, and the model repository at /var/lib/trueprob/models.
RUN install -d -o trueprob -g trueprob -m 0750 /var/lib/trueprob
VOLUME /var/lib/trueprob
WORKDIR /var/lib/trueprob
USER 10001:10001
ENTRYPOINT ["python", "-m", "trueprob_trainer"]
CMD ["--help"]

# The service on the CPU; last, so that a build without --target makes this one. -------------------
FROM service-base AS service
COPY locks/service.txt ./requirements.txt
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --require-hashes --requirement requirements.txt
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-deps --no-index /wheels/*.whl
COPY models/ models/
# Exported as build_info: docker build --build-arg SOURCE_COMMIT="$(git rev-parse HEAD)" .
ARG SOURCE_COMMIT=unknown
ENV SOURCE_COMMIT=${SOURCE_COMMIT}
USER 10001:10001
