# The steps image: every step of the pipelines, as kfp starts it. For GPUs give a CUDA base with Python 3.11 and an index
# that has torch's CUDA build (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL). Runs as 10001; writes under TASTELOOP_HOME and /tmp.
# Built by infra/docker/build.sh (make images).
ARG BASE
FROM ${BASE} AS build
# Indexes, certificates and proxies (HTTP_PROXY, HTTPS_PROXY, NO_PROXY) of this build only: nothing of them stays.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
ARG PIP_CERT
COPY infra/docker/steps.lock torch.lock /
# Of OpenVINO the processor's plugin and the reader of ONNX are needed: the rest is a third of its size.
# A read-only root keeps no bytecode, and compiling at every start costs seconds. A library may hold files that only a newer
# Python can compile (torch does).
RUN python3 -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir --no-compile --no-deps --require-hashes --disable-pip-version-check --requirement /steps.lock \
 && /opt/venv/bin/pip install --no-cache-dir --no-compile --disable-pip-version-check --requirement /torch.lock \
 && /opt/venv/bin/pip uninstall --quiet --yes openvino-telemetry \
 && cd /opt/venv/lib/python3*/site-packages/openvino/libs \
 && rm -f cache.json libopenvino_intel_gpu_* libopenvino_intel_npu_* \
      libopenvino_tensorflow_* libopenvino_pytorch_* libopenvino_paddle_* libopenvino_jax_* libopenvino_gguf_* \
 && { python3 -m compileall -qq -j 0 /opt/venv/lib || true; }
COPY tasteloop /app/tasteloop
COPY validation /app/validation
COPY serving /app/serving
COPY components /app/components
COPY pipelines /app/pipelines
RUN python3 -m compileall -q -j 0 /app

FROM ${BASE}
RUN ! command -v cc && ! command -v gcc && ! command -v go
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
ARG REVISION
ARG SOURCE
ARG VERSION
LABEL org.opencontainers.image.title="tasteloop-steps" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.version="${VERSION}"
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp
USER 10001:10001
WORKDIR /tmp
CMD ["python", "-c", "import sys; sys.exit('this image runs the steps of a pipeline; see docs/cluster.md')"]
