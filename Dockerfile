# One image for the API, the workers and the migration; `compose.yaml` says which runs what.
# PostgreSQL and Valkey run beside it, so the embedded engines are left out.

FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python -m venv --without-pip /opt/orrery
COPY requirements-server.txt ./
RUN pip --python /opt/orrery/bin/python install --require-hashes -r requirements-server.txt
COPY pyproject.toml README.md LICENSE ./
COPY store store
COPY routing routing
COPY workers workers
COPY admin_api admin_api
COPY standalone standalone
# The lock also pins what builds the wheel; none of it is needed afterwards.
RUN pip --python /opt/orrery/bin/python wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && pip --python /opt/orrery/bin/python install --no-deps --no-index /wheels/*.whl \
    && pip --python /opt/orrery/bin/python uninstall --yes \
        hatchling packaging pathspec pluggy tomlkit trove-classifiers \
    && pip --python /opt/orrery/bin/python check

FROM python:3.13-slim
# Numeric, so that a cluster can see that it is not root.
RUN groupadd --gid 10001 orrery \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/orrery --shell /usr/sbin/nologin orrery \
    && install --directory --owner orrery --group orrery --mode 0700 /var/lib/orrery
COPY --from=build /opt/orrery /opt/orrery
ENV PATH=/opt/orrery/bin:$PATH PYTHONUNBUFFERED=1 ORRERY_HOME=/var/lib/orrery
# Keyring and artifacts.
VOLUME /var/lib/orrery
WORKDIR /var/lib/orrery
USER 10001:10001
EXPOSE 8000
# Of the API; containers that run something else switch it off.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["orrery"]
