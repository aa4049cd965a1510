# The runtime: no torch, no onnx, no compiler, and a user without rights.
FROM python:3.11-slim-bookworm AS build
# `cpu` or `gpu`: which ONNX Runtime is installed.
ARG RUNTIME=cpu
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY service ./service
COPY models ./models
COPY export ./export
RUN python -m venv /opt/handful \
 && /opt/handful/bin/pip install --no-cache-dir --disable-pip-version-check --constraint constraints.txt ".[${RUNTIME},postgres]" \
 && /opt/handful/bin/pip uninstall --yes --quiet pip \
 && find /opt/handful -name __pycache__ -prune -exec rm -rf {} + \
 && /opt/handful/bin/python -m compileall -q /opt/handful/lib

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --create-home --home-dir /var/lib/handful --shell /usr/sbin/nologin handful
COPY --from=build /opt/handful /opt/handful
COPY bundles /bundles
ENV PATH=/opt/handful/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HANDFUL_HOST=0.0.0.0 \
    HANDFUL_PORT=8000 \
    HANDFUL_BUNDLES=/bundles \
    HANDFUL_STORE=sqlite:////var/lib/handful/handful.db \
    HANDFUL_ALLOW_ANONYMOUS=1
# Without HANDFUL_KEYS anyone may call: publish the port on loopback, or behind something that checks who calls.
EXPOSE 8000
USER 10001:10001
WORKDIR /var/lib/handful
VOLUME /var/lib/handful
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['HANDFUL_PORT'] + '/health/ready', timeout=2)"]
CMD ["handful", "serve"]
