# The serving image: `python -m serving`, and `python -m serving.collector`. ONNX Runtime and OpenVINO, no torch, no MLflow;
# a bundle is mounted (KServe's storage initialiser brings it). Runs as 10001 with a read-only root; it writes to /tmp alone.
# Built by infra/docker/build.sh (make images).
ARG BASE
FROM ${BASE} AS build
# Indexes, certificates and proxies (HTTP_PROXY, HTTPS_PROXY, NO_PROXY) of this build only: nothing of them stays.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
ARG PIP_CERT
COPY infra/docker/serving.lock /serving.lock
# Of OpenVINO the server needs the processor's plugin and the reader of ONNX: the rest is a third of its size.
# A read-only root keeps no bytecode, and compiling at every start costs seconds. A library may hold files that only a newer
# Python can compile (torch does).
RUN python3 -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir --no-compile --no-deps --require-hashes --disable-pip-version-check --requirement /serving.lock \
 && /opt/venv/bin/pip uninstall --quiet --yes openvino-telemetry setuptools pip \
 && cd /opt/venv/lib/python3*/site-packages/openvino/libs \
 && rm -f cache.json libopenvino_intel_gpu_* libopenvino_intel_npu_* \
      libopenvino_tensorflow_* libopenvino_pytorch_* libopenvino_paddle_* libopenvino_jax_* libopenvino_gguf_* \
 && { python3 -m compileall -qq -j 0 /opt/venv/lib || true; }
COPY tasteloop /app/tasteloop
COPY serving /app/serving
RUN python3 -m compileall -q -j 0 /app

FROM ${BASE}
RUN ! command -v cc && ! command -v gcc && ! command -v go
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
ARG REVISION
ARG SOURCE
ARG VERSION
LABEL org.opencontainers.image.title="tasteloop-serving" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.version="${VERSION}"
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp TASTELOOP_HOME=/tmp/home HF_HUB_OFFLINE=1
USER 10001:10001
WORKDIR /app
EXPOSE 8080 8081
ENTRYPOINT ["python", "-m", "serving"]
