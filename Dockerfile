# Coldstream's worker. Targets: cpu (the default) and cuda (needs the NVIDIA container runtime and a driver for CUDA 13).
#   docker build --target cpu --tag coldstream:cpu .
#   docker build --target cuda --tag coldstream:cuda .
# Versions are pinned: the base by its tag, every library by deploy/constraints.txt (make lock).

FROM python:3.11.13-slim-bookworm AS source
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY encoder encoder
COPY export export
COPY evaluation evaluation
COPY streams streams
RUN pip install --no-cache-dir "build==1.3.0" "hatchling==1.27.0" \
    && python -m build --wheel --no-isolation --outdir /dist

FROM python:3.11.13-slim-bookworm AS install-cpu
COPY deploy/constraints.txt /constraints.txt
COPY --from=source /dist /dist
RUN python -m venv /coldstream \
    && wheel="$(echo /dist/*.whl)" \
    && /coldstream/bin/pip install --no-cache-dir --constraint /constraints.txt "${wheel}[cpu]"

FROM python:3.11.13-slim-bookworm AS install-cuda
COPY deploy/constraints.txt /constraints.txt
COPY --from=source /dist /dist
RUN python -m venv /coldstream \
    && wheel="$(echo /dist/*.whl)" \
    && /coldstream/bin/pip install --no-cache-dir --constraint /constraints.txt "${wheel}[gpu]"

FROM python:3.11.13-slim-bookworm AS base
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin coldstream \
    && install --directory --owner coldstream --group coldstream /data
ENV PATH=/coldstream/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    NUMBA_CACHE_DIR=/data/compiled \
    COLDSTREAM_INDEX=edge:/data/index \
    COLDSTREAM_LOG_FORMAT=json
WORKDIR /data
VOLUME /data
EXPOSE 9464
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=6 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9464/healthz', timeout=2)"]
ENTRYPOINT ["coldstream"]
CMD ["worker"]

FROM base AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    COLDSTREAM_PROVIDER=cuda
COPY --from=install-cuda /coldstream /coldstream

FROM base AS cpu
COPY --from=install-cpu /coldstream /coldstream
